//! Where connections come from: the control socket, and a loopback port for those who only look.
//!
//! A socket file that is left from a daemon that died is removed only when nobody answers on it. The new one is made
//! under another name and renamed, so that it is never there with another mode than it should have.

use std::io;
use std::net::{self, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::{Router, middleware};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, Semaphore, watch};

use super::Backend;
use super::gate::{Token, gate};
use super::page::{self, Page};
use super::router::{router, router_with};
use super::shared::Shared;

/// Who may connect: the owner and the group.
const MODE: u32 = 0o660;
/// Longest path of a unix socket, in bytes, without the zero at its end.
const LONGEST_PATH: usize = 107;
/// What the socket's name ends with before it has its mode.
const UNFINISHED: &str = "~";
/// Connections at a time.
const MOST_CONNECTIONS: usize = 128;
/// A request must have sent its head within this time.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Headers of a request.
const MOST_HEADERS: usize = 32;
/// Bytes of a request's head.
const LONGEST_HEAD: usize = 16 << 10;
/// Time for the first request of who is connected when the daemon stops or reloads.
const FIRST_WORD: Duration = Duration::from_millis(500);
/// Time for the last answers when the daemon stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Pause after the system would give no connection, as when file descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on it.
    #[error("the socket `{}` is in use: another daemon answers on it", .0.display())]
    InUse(PathBuf),
    /// Something else has its name.
    #[error("`{}` is in the way of the control socket, and is no socket", .0.display())]
    InTheWay(PathBuf),
    /// The path is too long for a socket.
    #[error(
        "the control socket's path `{}` has more than {LONGEST_PATH} bytes, which the system does not allow",
        .0.display()
    )]
    TooLong(PathBuf),
    /// The port cannot be had.
    #[error("cannot listen on {address}: {cause}")]
    Port {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The system would not.
    #[error("cannot listen on `{}`: {cause}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// The control socket, listening. It is removed with this value.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens. Inside a tokio runtime.
    ///
    /// # Errors
    /// Another daemon listens there, something else is in the way, the system would not.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let unfinished = PathBuf::from(format!("{}{UNFINISHED}", path.display()));
        if unfinished.as_os_str().len() > LONGEST_PATH {
            return Err(SocketError::TooLong(path.to_owned()));
        }
        let fail = |cause| SocketError::Io { path: path.to_owned(), cause };
        make_room(path)?;
        make_room(&unfinished)?;
        let listener = UnixListener::bind(&unfinished).map_err(fail)?;
        std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(MODE)).map_err(fail)?;
        std::fs::rename(&unfinished, path).map_err(fail)?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A socket that stays behind is removed by the next daemon.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes a socket on which nobody answers.
fn make_room(path: &Path) -> Result<(), SocketError> {
    let fail = |cause| SocketError::Io { path: path.to_owned(), cause };
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::InTheWay(path.to_owned()));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(fail)
        }
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) => Err(fail(error)),
    }
}

/// A port on the loopback interface, listening.
#[derive(Debug)]
pub struct Loopback {
    listener: TcpListener,
}

impl Loopback {
    /// Listens. Inside a tokio runtime.
    ///
    /// # Errors
    /// The port is taken, or the system would not.
    pub fn bind(address: SocketAddr) -> Result<Self, SocketError> {
        let fail = |cause| SocketError::Port { address, cause };
        let listener = net::TcpListener::bind(address).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let listener = TcpListener::from_std(listener).map_err(fail)?;
        tracing::info!(address = %listener.local_addr().map_err(fail)?, "serves the page, the metrics and the API");
        Ok(Self { listener })
    }
}

/// What is shown and asked over TCP beside the API.
pub struct Face {
    /// What a request that changes something must show; without it nothing is changed.
    pub token: Option<Token>,
    /// The page.
    pub page: Page,
}

/// Answers on the socket until shutdown, and then for a moment more to those who are being answered. As long as somebody else has
/// the socket too, those who come later wait until it is served again.
pub async fn serve(socket: Arc<Socket>, backend: Arc<Backend>, shutdown: watch::Receiver<bool>) {
    let router = router(Shared::new(backend, shutdown.clone()));
    serve_on(socket, router, shutdown).await;
}

/// Likewise on a port, behind the gate.
pub async fn serve_tcp(port: Loopback, face: Face, backend: Arc<Backend>, shutdown: watch::Receiver<bool>) {
    let shared = Shared::new(backend, shutdown.clone());
    let router = router_with(shared, page::routes(face.page))
        .layer(middleware::from_fn_with_state(Arc::new(face.token), gate));
    serve_on(port, router, shutdown).await;
}

/// Somewhere that connections come from.
trait Listening: Send + 'static {
    type Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Listening for Arc<Socket> {
    type Connection = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<Self::Connection> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Listening for Loopback {
    type Connection = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Self::Connection> {
        Ok(self.listener.accept().await?.0)
    }
}

async fn serve_on<L: Listening>(listening: L, router: Router, mut shutdown: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    while !*shutdown.borrow() {
        let accepted = tokio::select! {
            accepted = accept(&listening, &room) => accepted,
            changed = shutdown.changed() => if changed.is_err() { break } else { continue },
        };
        match accepted {
            Ok((connection, permit)) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                tokio::spawn(async move {
                    answer(connection, router, shutdown).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listening);
    // All permits are back when all connections are closed.
    let all = u32::try_from(MOST_CONNECTIONS).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(LAST_ANSWERS, room.acquire_many(all)).await;
}

async fn accept<L: Listening>(
    listening: &L,
    room: &Arc<Semaphore>,
) -> io::Result<(L::Connection, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    Ok((listening.accept().await?, permit))
}

async fn answer(
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) {
    let begun = Arc::new(Notify::new());
    let service = service_fn({
        let (begun, router) = (begun.clone(), TowerToHyperService::new(router));
        move |request| {
            begun.notify_one();
            router.call(request)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(MOST_HEADERS)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(connection), service);
    let mut connection = std::pin::pin!(connection);
    // A client that goes away, or talks no HTTP, is its own affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = shutdown.wait_for(|stops| *stops) => {}
    }
    // Who was let in just before is heard first: a connection without a request would be closed at once.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = begun.notified() => {}
        () = tokio::time::sleep(FIRST_WORD) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}
