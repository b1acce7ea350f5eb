//! What all pages for people have in common: plain, without scripts, framed by nobody, kept by
//! nobody, asking nobody else for anything.

use aws_lc_rs::digest;
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::types::ApprovalId;

/// A page. `body` is HTML made here, with everything from outside escaped; so is `title`.
pub(super) fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\
         <body><main><h1>{title}</h1>{body}</main></body></html>"
    );
    let style = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; \
         frame-ancestors 'none'; base-uri 'none'"
    );
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer`, a browser would send `Origin: null` with the page's own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let mut response = (status, fixed, html).into_response();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// `/approvals/{id}`: what a client shows its user while a call waits. It says the same of every
/// id, whether there is such an approval or not, decides nothing, and tells nothing of the call.
pub(super) async fn approval(Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<ApprovalId>() else {
        return page(StatusCode::NOT_FOUND, "No approval", "<p>This is no approval's page.</p>");
    };
    let body = format!(
        "<p>A call waits for approval <b>{id}</b> by a second person.</p>\
         <p>Nothing can be decided here. Ask somebody who may to look at it and decide on the \
         command line:</p><pre>mcpx approve {id}</pre>\
         <p>Once they have, the call goes on by itself where its program still waits; otherwise \
         make the same call again. You can close this page.</p>"
    );
    page(StatusCode::OK, "Waiting for approval", &body)
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.5 system-ui,sans-serif;margin:0}\
main{max-width:26rem;margin:3rem auto;padding:0 1rem}\
h1{font-size:1.5rem}\
pre{overflow-x:auto;padding:.5rem .75rem;border:1px solid #777;border-radius:4px}\
label{display:block;margin:1rem 0 .25rem;font-weight:600}\
input{font:inherit;width:100%;padding:.5rem;box-sizing:border-box;border:1px solid #777;border-radius:4px}\
#user_code{font-family:monospace;font-size:1.25rem;letter-spacing:.15em}\
button{font:inherit;padding:.5rem 1.25rem;border:2px solid #1d4ed8;border-radius:4px;background:#1d4ed8;color:#fff;cursor:pointer}\
button.quiet{background:transparent;color:inherit;border-color:#777}\
:focus-visible{outline:3px solid #f59e0b;outline-offset:2px}\
.problem{border-left:4px solid #dc2626;padding:.5rem .75rem}";
