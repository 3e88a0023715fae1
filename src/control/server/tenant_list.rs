//! `GET /v1/tenants`: a JSON array that is never in memory as a whole. A page is asked of the daemon when the peer has
//! taken the one before the last: so the daemon looks rows up while others are written, and a slow reader holds nobody
//! up. It costs two pages, and as long as it reads, the config that ran when it asked for the last.
//!
//! Each row stands on a line of its own, between `{"tenants":[` and `]}`; [`Client`](crate::control::Client) and line-wise tools rely on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};

use super::{Query, Refusal, answer, ask_ahead};
use crate::control::protocol::{Filter, Page};
use crate::domain::{AppName, TenantId};

/// Rows in a page: enough to be quick, few enough that the scheduler does not notice.
const PAGE: usize = 1000;

/// From a URL's query. Names and states need no percent-encoding, so none is understood.
pub(super) fn parse_filter(query: &str) -> Result<Filter, String> {
    let mut filter = Filter::default();
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
    /// The page that is asked for; `None` after the last.
    coming: Option<oneshot::Receiver<Page>>,
    written: bool,
}

impl Body {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }

    pub(super) fn rows(queries: mpsc::Sender<Query>, filter: Filter) -> Self {
        let mut cursor = Cursor { queries, filter, coming: None, written: false };
        Self::Rows(Box::pin(async {
            cursor.ask_for_rows_after(None).await?;
            cursor.step(b"{\"tenants\":[").await
        }))
    }
}

impl Cursor {
    async fn ask_for_rows_after(&mut self, after: Option<TenantId>) -> io::Result<()> {
        let filter = self.filter.clone();
        let asked = ask_ahead(&self.queries, |reply| Query::Page { after, limit: PAGE, filter, reply }).await;
        self.coming = Some(asked.map_err(Refusal::into_io)?);
        Ok(())
    }

    async fn step(mut self, before: &'static [u8]) -> io::Result<Step> {
        let Some(coming) = self.coming.take() else { return Ok(None) };
        let page = answer(coming).await.map_err(Refusal::into_io)?;
        let is_last = page.next.is_none();
        if !is_last {
            self.ask_for_rows_after(page.next).await?;
        }
        let mut text = Vec::with_capacity(before.len() + page.rows.len() * 512);
        text.extend_from_slice(before);
        for row in page.rows {
            text.extend_from_slice(if self.written { b",\n" } else { b"\n" });
            self.written = true;
            serde_json::to_writer(&mut text, &row)?;
        }
        if is_last {
            text.extend_from_slice(b"\n]}\n");
        }
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
    use crate::control::protocol::State;

    #[test]
    fn a_filter_names_an_app_and_states() {
        let filter = parse_filter("app=crm&state=expired,refused").unwrap();
        assert_eq!(filter.app, Some("crm".parse().unwrap()));
        assert_eq!(filter.states, [State::Expired, State::Refused]);
        assert_eq!(parse_filter("").unwrap(), Filter::default());
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused_with_what_there_is() {
        assert!(parse_filter("state=sleepy").unwrap_err().contains("pending"));
        assert!(parse_filter("colour=red").unwrap_err().contains("app="));
        assert!(parse_filter("app=../x").is_err());
    }
}
