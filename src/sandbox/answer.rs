//! Answers, and how they are sent: whole, slowly, cut off, or not at all.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::time::Sleep;

/// An arbitrary answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawAnswer {
    /// The status, 200 to 599.
    pub status: u16,
    /// The headers. Those that are invalid in HTTP are left out.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl RawAnswer {
    /// An answer with the content type of JSON.
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::of_type("application/json", status, body)
    }

    /// An answer with the content type of HTML.
    pub fn html(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::of_type("text/html; charset=utf-8", status, body)
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn of_type(content_type: &str, status: u16, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![(CONTENT_TYPE.to_string(), content_type.as_bytes().to_vec())];
        Self { status, headers, body: body.into() }
    }
}

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Whole,
    Hang,
    Reset,
    CloseMidBody,
    Trickle,
}

/// An answer, with the manner and time of its sending.
#[derive(Debug)]
pub(super) struct ScriptedAnswer {
    raw: RawAnswer,
    pub(super) manner: Manner,
    pub(super) delay: Duration,
    /// Sent as `Date` instead of the clock's.
    pub(super) date: Option<String>,
}

impl From<RawAnswer> for ScriptedAnswer {
    fn from(raw: RawAnswer) -> Self {
        Self { raw, manner: Manner::Whole, delay: Duration::ZERO, date: None }
    }
}

impl ScriptedAnswer {
    pub(super) fn json(status: u16, body: &str) -> Self {
        RawAnswer::json(status, body).into()
    }

    pub(super) fn html(status: u16, body: &str) -> Self {
        RawAnswer::html(status, body).into()
    }

    pub(super) fn grant(token: &str, expires_in_s: u32) -> Self {
        Self::json(200, &format!(r#"{{"access_token":"{token}","expires_in":{expires_in_s}}}"#))
    }

    pub(super) fn refusal(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({
            "code": code,
            "message": message,
            "requestid": "5A4D7E2C-0000-7C1B-9A55-5A4DB0C00001",
        });
        Self::json(status, &body.to_string())
    }

    pub(super) fn app_throttled() -> Self {
        Self::refusal(403, "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi", "the app calls this API too often")
    }

    pub(super) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.raw = self.raw.with_header(name, value);
        self
    }

    pub(super) fn map_body(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        change(&mut self.raw.body);
        self
    }

    pub(super) fn in_manner(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    pub(super) fn delayed(self, delay: Duration) -> Self {
        Self { delay: self.delay + delay, ..self }
    }

    /// The answer as HTTP.
    pub(super) fn into_response(self) -> Response<AnswerBody> {
        let length = self.raw.body.len();
        let mut response = Response::new(AnswerBody::new(self.raw.body.into(), self.manner));
        *response.status_mut() = StatusCode::from_u16(self.raw.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        for (name, value) in self.raw.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.append(name, value);
            }
        }
        if self.manner != Manner::Whole {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if let Some(date) = self.date.and_then(|date| HeaderValue::try_from(date).ok()) {
            headers.insert(DATE, date);
        }
        response
    }
}

/// A body that is sent at a set pace, and may break off.
pub(super) struct AnswerBody {
    chunks: VecDeque<Bytes>,
    pause: Duration,
    pausing: Option<Pin<Box<Sleep>>>,
    breaks_off: bool,
}

impl AnswerBody {
    fn new(body: Bytes, manner: Manner) -> Self {
        let (chunks, pause, breaks_off) = match manner {
            Manner::CloseMidBody => (VecDeque::from([body.slice(..body.len() / 2)]), 50, true),
            Manner::Trickle => ((0..body.len()).map(|at| body.slice(at..=at)).collect(), 100, false),
            Manner::Whole | Manner::Hang | Manner::Reset => (VecDeque::from([body]), 0, false),
        };
        let chunks = chunks.into_iter().filter(|chunk: &Bytes| !chunk.is_empty()).collect();
        Self { chunks, pause: Duration::from_millis(pause), pausing: None, breaks_off }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(pausing) = &mut self.pausing {
            std::task::ready!(pausing.as_mut().poll(context));
            self.pausing = None;
        }
        match self.chunks.pop_front() {
            Some(chunk) => {
                if !self.pause.is_zero() {
                    self.pausing = Some(Box::pin(tokio::time::sleep(self.pause)));
                }
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            None if self.breaks_off => {
                Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the sandbox breaks off here"))))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty() && !self.breaks_off
    }

    fn size_hint(&self) -> SizeHint {
        if self.pause.is_zero() {
            SizeHint::with_exact(self.chunks.iter().map(|chunk| chunk.len() as u64).sum())
        } else {
            SizeHint::default()
        }
    }
}
