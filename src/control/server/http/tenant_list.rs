//! `GET /v1/tenants`: a JSON array that is never in memory as a whole.
//!
//! A page is requested from the daemon once the client has taken the page before the last. So the daemon looks rows up while
//! others are written, and a slow client holds nobody up. A listing costs two pages and, as long as the client reads, the config
//! that ran when the last page was requested.
//!
//! Each row stands on a line of its own, between `{"tenants":[` and `]}`. [`ControlClient`](crate::control::ControlClient) and line-wise tools
//! rely on it.

use std::io;

use futures_util::stream::try_unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use tokio::sync::oneshot;

use super::response::Body;
use crate::control::protocol::{Page, TenantFilter};
use crate::control::server::query::{Queries, Query, Stopping};
use crate::domain::{AppName, TenantId};

/// Rows in a page: enough to be quick, few enough that the scheduler does not notice.
const PAGE: usize = 1000;

/// The body of a listing of the tenants that `filter` admits.
pub(super) fn tenant_list(queries: Queries, filter: TenantFilter) -> Body {
    let listing = Listing { queries, filter, next: Next::First, has_rows: false };
    StreamBody::new(try_unfold(listing, Listing::next_chunk)).boxed_unsync()
}

/// How far a listing has come.
struct Listing {
    queries: Queries,
    filter: TenantFilter,
    next: Next,
    /// Whether a row was written, so that the next one follows a comma.
    has_rows: bool,
}

/// The next page.
enum Next {
    First,
    Requested(oneshot::Receiver<Page>),
    None,
}

impl Listing {
    async fn request(&self, after: Option<TenantId>) -> Result<oneshot::Receiver<Page>, Stopping> {
        let filter = self.filter.clone();
        self.queries.send(|reply| Query::Page { after, limit: PAGE, filter, reply }).await
    }

    /// The text of the next page, and the rest of the listing. The text of a page without wanted rows is empty.
    async fn next_chunk(mut self) -> io::Result<Option<(Frame<Bytes>, Self)>> {
        let (page, before) = match std::mem::replace(&mut self.next, Next::None) {
            Next::First => (self.request(None).await?, "{\"tenants\":["),
            Next::Requested(page) => (page, ""),
            Next::None => return Ok(None),
        };
        let page = page.await.map_err(|_| Stopping)?;
        let is_last = page.next.is_none();
        // Before the rows are written, so that the daemon works meanwhile.
        if !is_last {
            self.next = Next::Requested(self.request(page.next).await?);
        }
        let mut text = Vec::with_capacity(before.len() + page.rows.len() * 512);
        text.extend_from_slice(before.as_bytes());
        for row in page.rows {
            text.extend_from_slice(if self.has_rows { b",\n" } else { b"\n" });
            self.has_rows = true;
            serde_json::to_writer(&mut text, &row)?;
        }
        if is_last {
            text.extend_from_slice(b"\n]}\n");
        }
        Ok(Some((Frame::data(text.into()), self)))
    }
}

/// Reads a URL's query. Names and states need no percent-encoding, so none is understood.
pub(super) fn parse_filter(query: &str) -> Result<TenantFilter, String> {
    let mut filter = TenantFilter::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("app", app)) => filter.app = Some(AppName::new(app).map_err(|e| e.to_string())?),
            Some(("state", states)) => {
                for state in states.split(',') {
                    filter.states.push(state.parse()?);
                }
            }
            _ => return Err(format!("`{pair}` is not known here; there are app=… and state=…")),
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TenantState;

    #[test]
    fn a_filter_names_an_app_and_states() {
        let filter = parse_filter("app=crm&state=expired,refused").unwrap();
        assert_eq!(filter.app, Some("crm".parse().unwrap()));
        assert_eq!(filter.states, [TenantState::Expired, TenantState::Refused]);
        assert_eq!(parse_filter("").unwrap(), TenantFilter::default());
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused_with_what_there_is() {
        assert!(parse_filter("state=sleepy").unwrap_err().contains("pending"));
        assert!(parse_filter("colour=red").unwrap_err().contains("app="));
        assert!(parse_filter("app=../x").is_err());
    }
}
