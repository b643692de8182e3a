//! The built page, in memory: a few files that are read once, so that no address ever becomes a path.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use super::refused::Refused;
use super::shared::Shared;

/// The files of the page, and under which addresses they are served.
const FILES: [(&str, &str, &str); 7] = [
    ("/", "live.html", "text/html; charset=utf-8"),
    ("/live.js", "live.js", "text/javascript; charset=utf-8"),
    ("/live.css", "live.css", "text/css; charset=utf-8"),
    ("/planner", "index.html", "text/html; charset=utf-8"),
    ("/planner.js", "planner.js", "text/javascript; charset=utf-8"),
    ("/planner.css", "planner.css", "text/css; charset=utf-8"),
    ("/planner.wasm", "planner.wasm", "application/wasm"),
];
/// Bytes of one of them at most.
const LONGEST_FILE: u64 = 4 << 20;

/// The page as it was built.
#[derive(Clone, Default)]
pub struct Page(BTreeMap<&'static str, (&'static str, Bytes)>);

impl Page {
    /// Reads the files of a folder.
    ///
    /// # Errors
    /// One of them is not there or cannot be read.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let read = |(address, name, kind): (&'static str, &str, &'static str)| {
            let path = folder.join(name);
            let named =
                |cause: io::Error| io::Error::new(cause.kind(), format!("{}: {cause}", path.display()));
            let mut bytes = Vec::new();
            let file = fs::File::open(&path).map_err(named)?;
            file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(named)?;
            if bytes.len() as u64 > LONGEST_FILE {
                return Err(named(io::Error::other(format!("it is longer than {LONGEST_FILE} bytes"))));
            }
            Ok((address, (kind, Bytes::from(bytes))))
        };
        FILES.into_iter().map(read).collect::<io::Result<_>>().map(Self)
    }
}

/// The routes of the page.
pub(super) fn routes(page: Page) -> Router<Shared> {
    let mut router = Router::new();
    for (address, ..) in FILES {
        router = router.route(address, get(file).with_state(page.clone()));
    }
    router
}

async fn file(State(page): State<Page>, request: Request) -> Response {
    let Some((kind, bytes)) = page.0.get(request.uri().path()) else {
        return match request.uri().path() {
            "/" => Html(NOT_HERE).into_response(),
            _ => Refused::no_route(&request).into_response(),
        };
    };
    let headers = [
        (header::CONTENT_TYPE, *kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (StatusCode::OK, headers, bytes.clone()).into_response()
}

/// What stands in the place of a page that was not installed.
const NOT_HERE: &str = "<!doctype html><title>lrpathd</title><p>lrpathd runs. Its page is not installed: build it with \
                        <code>make web</code> and name its folder in <code>control.page</code>. The API answers at \
                        <a href=\"/v1/status\">/v1/status</a>.\n";
