use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const TOKEN: &str = "0123456789abcdef";

/// A daemon's API on a port of its own.
struct Port {
    folder: tempfile::TempDir,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
}

impl Port {
    async fn new(world: &World, with_token: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut backend = world.backend();
        backend.state = folder.path().to_owned();
        let address = free_port().await;
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        for (name, text) in [
            ("live.html", "<!doctype html>live"),
            ("live.js", "live()"),
            ("live.css", "p {}"),
            ("index.html", "<!doctype html>planner"),
            ("planner.js", "plan()"),
            ("planner.css", "i {}"),
            ("planner.wasm", "\0asm"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let token = with_token.then(|| Token::read(&folder.path().join("token")).unwrap());
        let page = Page::read(folder.path()).unwrap();
        Self::serving(backend, folder, address, Face { token, page })
    }

    /// One whose page was never built.
    async fn without_a_page(world: &World) -> Self {
        let face = Face { token: None, page: Page::default() };
        Self::serving(world.backend(), tempfile::tempdir().unwrap(), free_port().await, face)
    }

    fn serving(backend: Backend, folder: tempfile::TempDir, address: SocketAddr, face: Face) -> Self {
        let (stop, stopping) = watch::channel(false);
        let port = Loopback::bind(address).unwrap();
        let server = tokio::spawn(serve_tcp(port, face, Arc::new(backend), stopping));
        Self { folder, address, stop, server }
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> (u16, String, String) {
        let host = if headers.contains("host:") { "" } else { "host: localhost\r\n" };
        let request = format!("{method} {path} HTTP/1.1\r\n{host}{headers}connection: close\r\n\r\n");
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, head.to_owned(), body.to_owned())
    }

    async fn end(self) {
        self.stop.send(true).unwrap();
        self.server.await.unwrap();
        drop(self.folder);
    }
}

async fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn code(body: &str) -> Value {
    serde_json::from_str::<Value>(body).unwrap()["code"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_everything_is_shown_and_nothing_is_changed() {
    let world = World::new(&[PathSwitching]);
    let port = Port::new(&world, false).await;
    let before = world.ledger.read(|tree| tree.position());
    for path in ["/v1/status", "/v1/tree", "/v1/versions", "/v1/shards", "/v1/jobs", "/v1/openapi.json"] {
        assert_eq!(port.ask("GET", path, "").await.0, 200, "{path}");
    }
    for path in ["/v1/pause", "/v1/resume", "/v1/cut", "/v1/gc", "/v1/retry", "/v1/nothing", "/"] {
        for shown in ["", "authorization: Bearer 0123456789abcdef\r\n"] {
            let (status, _, body) = port.ask("POST", path, shown).await;
            assert_eq!((status, code(&body)), (403, json!("read-only")), "{path}");
        }
    }
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        assert_eq!(port.ask(method, "/v1/status", "").await.0, 403, "{method}");
    }
    assert_eq!(world.ledger.read(|tree| tree.position()), before);
    port.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_token_what_is_asked_for_is_done() {
    let world = World::new(&[PathSwitching]);
    let port = Port::new(&world, true).await;
    for shown in [
        "",
        "authorization: Bearer 0123456789abcdeF\r\n",
        "authorization: Bearer\r\n",
        "authorization: 0123456789abcdef\r\n",
    ] {
        let (status, head, body) = port.ask("POST", "/v1/pause", shown).await;
        assert_eq!((status, code(&body)), (401, json!("no-token")), "{shown}");
        assert!(head.contains("www-authenticate: Bearer"), "{head}");
    }
    assert!(!world.ledger.read(|tree| tree.run().paused));
    let (status, _, body) = port.ask("POST", "/v1/pause", "authorization: Bearer 0123456789abcdef\r\n").await;
    assert_eq!(
        (status, serde_json::from_str(&body).unwrap()),
        (200, json!({"paused": true, "changed": true}))
    );
    assert!(world.ledger.read(|tree| tree.run().paused));
    port.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_elsewhere_that_leads_a_browser_here_is_told_nothing() {
    let port = Port::new(&World::new(&[PathSwitching]), false).await;
    let (status, _, body) = port.ask("GET", "/v1/status", "host: evil.example\r\n").await;
    assert_eq!((status, code(&body)), (421, json!("not-this-host")));
    assert_eq!(port.ask("GET", "/v1/status", "host: 127.0.0.1:9\r\n").await.0, 200);
    port.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_its_own_files_and_no_address_is_a_path() {
    let port = Port::new(&World::new(&[PathSwitching]), false).await;
    for (path, text) in
        [("/", "live"), ("/live.js", "live()"), ("/planner", "planner"), ("/planner.wasm", "\0asm")]
    {
        let (status, head, body) = port.ask("GET", path, "").await;
        assert_eq!(status, 200, "{path}");
        assert!(body.contains(text), "{path}: {body}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    }
    for path in [
        "/token",
        "/../token",
        "/%2e%2e/token",
        "//token",
        "/live.js/../token",
        "/index.html",
        "/control.sock",
    ] {
        let (status, _, body) = port.ask("GET", path, "").await;
        assert_eq!(status, 404, "{path}");
        assert!(!body.contains(TOKEN), "{path}");
    }
    port.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = Loopback::bind(taken.local_addr().unwrap()).unwrap_err();
    assert!(error.to_string().starts_with("cannot listen on 127.0.0.1:"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_page_was_not_installed_it_says_what_to_do_and_the_rest_is_served() {
    let port = Port::without_a_page(&World::new(&[PathSwitching])).await;
    let (status, head, body) = port.ask("GET", "/", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/html"), "{head}");
    assert!(body.contains("make web") && body.contains("control.page"), "{body}");
    assert_eq!(port.ask("GET", "/live.js", "").await.0, 404);
    assert_eq!(port.ask("GET", "/v1/status", "").await.0, 200);
    port.end().await;
}
