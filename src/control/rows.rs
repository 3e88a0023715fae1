//! `GET /v1/tenants`: a JSON array that is never in memory as a whole. A page is asked of the daemon when the peer has
//! taken the one before, so a slow reader costs one page and holds nobody up.
//!
//! Each row stands on a line of its own, between `{"tenants":[` and `]}`; [`super::Client`] and line-wise tools rely on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, SizeHint};
use tokio::sync::mpsc;

use super::protocol::{State, TenantRow};
use super::server::{Query, ask};
use crate::domain::{AppName, TenantId};

/// Rows in a page: enough to be quick, few enough that the scheduler does not notice.
const PAGE: usize = 1000;

/// Which rows are wanted: `app=crm&state=expired,refused`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    app: Option<AppName>,
    /// Empty: all.
    states: Vec<State>,
}

impl Filter {
    /// From a URL's query. Names and states need no percent-encoding, so none is understood.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut filter = Self::default();
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

    fn admits(&self, row: &TenantRow) -> bool {
        self.app.as_ref().is_none_or(|app| app.as_str() == row.app)
            && (self.states.is_empty() || self.states.contains(&row.state))
    }
}

/// An answer's body.
pub(super) enum Body {
    Whole(Option<Bytes>),
    Rows(Pin<Box<dyn Future<Output = io::Result<Step>> + Send>>),
}

/// A piece of the text, and where to go on; `None` at the end.
type Step = Option<(Bytes, Cursor)>;

/// How far a listing has come.
pub(super) struct Cursor {
    queries: mpsc::Sender<Query>,
    filter: Filter,
    at: Position,
    written: bool,
}

enum Position {
    Page(Option<TenantId>),
    End,
}

impl Body {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }

    pub(super) fn rows(queries: mpsc::Sender<Query>, filter: Filter) -> Self {
        let cursor = Cursor { queries, filter, at: Position::Page(None), written: false };
        Self::Rows(Box::pin(cursor.step(b"{\"tenants\":[")))
    }
}

impl Cursor {
    async fn step(mut self, before: &'static [u8]) -> io::Result<Step> {
        let Position::Page(after) = self.at else { return Ok(None) };
        let page = ask(&self.queries, |reply| Query::Page { after, limit: PAGE, reply });
        let page = page.await.map_err(|refusal| refusal.into_io())?;
        let mut text = Vec::with_capacity(before.len() + page.rows.len() * 512);
        text.extend_from_slice(before);
        for row in page.rows.iter().filter(|row| self.filter.admits(row)) {
            text.extend_from_slice(if self.written { b",\n" } else { b"\n" });
            self.written = true;
            serde_json::to_writer(&mut text, row)?;
        }
        self.at = match page.next {
            Some(id) => Position::Page(Some(id)),
            None => {
                text.extend_from_slice(b"\n]}\n");
                Position::End
            }
        };
        Ok(Some((text.into(), self)))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let step = match &mut *self {
                Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
                Self::Rows(next) => match next.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(step) => step,
                },
            };
            match step {
                Ok(Some((bytes, cursor))) => {
                    *self = Self::Rows(Box::pin(cursor.step(b"")));
                    // A page of which the filter left nothing.
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                }
                Ok(None) => {
                    *self = Self::Whole(None);
                    return Poll::Ready(None);
                }
                Err(e) => {
                    *self = Self::Whole(None);
                    return Poll::Ready(Some(Err(e)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Rows(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_an_app_and_states() {
        let filter = Filter::parse("app=crm&state=expired,refused").unwrap();
        assert_eq!(filter.app, Some("crm".parse().unwrap()));
        assert_eq!(filter.states, [State::Expired, State::Refused]);
        assert_eq!(Filter::parse("").unwrap(), Filter::default());
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused_with_what_there_is() {
        assert!(Filter::parse("state=sleepy").unwrap_err().contains("pending"));
        assert!(Filter::parse("colour=red").unwrap_err().contains("app="));
        assert!(Filter::parse("app=../x").is_err());
    }
}
