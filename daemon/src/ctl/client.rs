//! Talking to the daemon on its socket.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::types::Refusal;
use crate::edge::failure::{Cause, Exit, Failure};

/// Longest line of a stream, in bytes.
const LONGEST_LINE: usize = 16 << 20;

/// A daemon's socket.
pub struct Client {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// For a socket; nothing is asked yet.
    ///
    /// # Errors
    /// The system gives no file descriptor.
    pub fn new(socket: &Path) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime
            .map_err(|error| Failure::new("the system refuses to wait for a socket").because(error))?;
        Ok(Self { socket: socket.to_owned(), runtime })
    }

    /// Asks for JSON.
    ///
    /// # Errors
    /// No daemon answers, or it refuses.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.runtime.block_on(async { self.json(self.send(Method::GET, path, Bytes::new()).await?).await })
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// No daemon answers, or it refuses.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(Failure::new)?;
        self.runtime.block_on(async { self.json(self.send(Method::POST, path, body.into()).await?).await })
    }

    /// Takes what comes, piece by piece, until the daemon ends it or `take` says that it is enough.
    ///
    /// # Errors
    /// No daemon answers, it refuses, or it goes away in the middle.
    pub fn stream(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let mut body = self.send(Method::GET, path, Bytes::new()).await?.into_body();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.gone(error))?;
                if let Some(bytes) = frame.data_ref()
                    && !take(bytes)?
                {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Takes the lines of a stream.
    ///
    /// # Errors
    /// As [`Client::stream`].
    pub fn lines(
        &self,
        path: &str,
        mut take: impl FnMut(&str) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let mut rest = Vec::new();
        self.stream(path, |bytes| {
            rest.extend_from_slice(bytes);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if !line.trim().is_empty() && !take(line.trim_end())? {
                    return Ok(false);
                }
            }
            if rest.len() > LONGEST_LINE {
                return Err(self.gone("a line without an end"));
            }
            Ok(true)
        })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.no_daemon(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.gone(error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "lrpathd")
            .body(Full::new(body))
            .map_err(Failure::new)?;
        let response = sender.send_request(request).await.map_err(|error| self.gone(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = self.collect(response).await?;
        Err(match serde_json::from_slice::<Refusal>(&bytes) {
            Ok(refusal) => {
                Failure { hint: refusal.hint, cause: refusal.cause.map(Cause), ..Failure::new(refusal.error) }
            }
            Err(_) => Failure::new(format!("the daemon answers {status}"))
                .hint("is the daemon of the same version as this program?"),
        })
    }

    async fn json<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, Failure> {
        let bytes = self.collect(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::new("the daemon's answer is not understood")
                .because(error)
                .hint("is the daemon of the same version as this program?")
        })
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        response.into_body().collect().await.map(|body| body.to_bytes()).map_err(|error| self.gone(error))
    }

    fn no_daemon(&self, error: &io::Error) -> Failure {
        let socket = self.socket.display();
        let failure =
            Failure::new(format!("no daemon answers on `{socket}`")).because(error).exit(Exit::NoDaemon);
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                failure.hint("the socket is for its owner and group: become a member of the group")
            }
            _ => failure
                .hint("start it with `lrpathd --state <folder>`, or name another with --state or --socket"),
        }
    }

    fn gone(&self, error: impl std::fmt::Display) -> Failure {
        Failure::new("the daemon went away in the middle of its answer").because(error).exit(Exit::NoDaemon)
    }
}
