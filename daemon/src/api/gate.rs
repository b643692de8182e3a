//! Who comes in over TCP.
//!
//! Every program and every page in a browser on the machine can reach a loopback port, so the port is less than the socket:
//! it shows, and changes nothing without the token. A browser that was led here under another name (DNS rebinding) is
//! turned away by the name that it asks for.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::refused::Refused;

/// Bytes of a token at least and at most.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=512;

/// What a request that changes something must show. Only its digest is kept, and compared in constant time.
#[derive(Clone)]
pub struct Token(blake3::Hash);

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("the token's file `{}` cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// What it holds is no token.
    #[error(
        "`{}` holds no token: one line of {} to {} letters, digits and signs was expected",
        .0.display(), TOKEN_BYTES.start(), TOKEN_BYTES.end()
    )]
    NoToken(PathBuf),
}

impl Token {
    /// The token that a file holds: its only line.
    ///
    /// # Errors
    /// The file cannot be read, or what it holds is none.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let unreadable = |cause| TokenError::Unreadable { path: path.to_owned(), cause };
        let mut text = String::new();
        let longest = *TOKEN_BYTES.end() as u64 + 2;
        File::open(path).map_err(unreadable)?.take(longest).read_to_string(&mut text).map_err(unreadable)?;
        let token = text.trim_end();
        let is_word = token.bytes().all(|byte| byte.is_ascii_graphic());
        match is_word && TOKEN_BYTES.contains(&token.len()) {
            true => Ok(Self(blake3::hash(token.as_bytes()))),
            false => Err(TokenError::NoToken(path.to_owned())),
        }
    }

    fn is(&self, shown: &[u8]) -> bool {
        self.0 == blake3::hash(shown)
    }
}

/// Lets in who may come in.
pub(super) async fn gate(State(token): State<Arc<Option<Token>>>, request: Request, next: Next) -> Response {
    if let Err(refused) = is_of_this_machine(request.headers()) {
        return refused.into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let shown = request.headers().get(AUTHORIZATION);
        if let Err(refused) = may_change(token.as_ref().as_ref(), shown) {
            let mut response = refused.into_response();
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        }
    }
    next.run(request).await
}

fn is_of_this_machine(headers: &HeaderMap) -> Result<(), Refused> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let is_loopback = name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if is_loopback {
        return Ok(());
    }
    let error = "only localhost and the loopback addresses are answered here";
    Err(Refused::new(StatusCode::MISDIRECTED_REQUEST, "not-this-host", error)
        .hint("ask for http://localhost; a proxy sets the header `Host: localhost`"))
}

fn may_change(token: Option<&Token>, shown: Option<&HeaderValue>) -> Result<(), Refused> {
    let Some(token) = token else {
        let error = "over TCP the daemon only shows, and changes nothing";
        let hint = "use lrpathctl, which asks on the control socket, or set `control.token_file`";
        return Err(Refused::new(StatusCode::FORBIDDEN, "read-only", error).hint(hint));
    };
    let shown = shown.and_then(|shown| shown.as_bytes().strip_prefix(b"Bearer "));
    match shown.is_some_and(|shown| token.is(shown)) {
        true => Ok(()),
        false => {
            let error = "to change anything over TCP, the token must be shown";
            let hint = "send the header `Authorization: Bearer` with what `control.token_file` holds";
            Err(Refused::new(StatusCode::UNAUTHORIZED, "no-token", error).hint(hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_that_is_long_enough() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, is_token) in [
            ("0123456789abcdef\n", true),
            ("0123456789abcdef", true),
            ("0123456789abcde\n", false),
            ("", false),
            ("two words of a token\n", false),
            ("0123456789abcdef\n0123456789abcdef\n", false),
            (&"x".repeat(512), true),
            (&"x".repeat(513), false),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Token::read(&path).is_ok(), is_token, "{text:?}");
        }
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let token = Token::read(&path).unwrap();
        assert!(token.is(b"0123456789abcdef"));
        assert!(!token.is(b"0123456789abcdef\n") && !token.is(b"") && !token.is(b"0123456789abcdeF"));
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for (host, is_answered) in [
            ("localhost", true),
            ("localhost:7720", true),
            ("LOCALHOST:1", true),
            ("127.0.0.1:7720", true),
            ("127.9.9.9", true),
            ("[::1]:7720", true),
            ("[::1]", true),
            ("evil.example:7720", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("192.168.0.1", false),
            ("[::2]", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
            assert_eq!(is_of_this_machine(&headers).is_ok(), is_answered, "{host:?}");
        }
        assert!(is_of_this_machine(&HeaderMap::new()).is_err());
    }
}
