//! A body that has to arrive in time: a policy's timeout is for the whole answer, not for its beginning alone.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Body, BoxError};
use crate::resiliency::TIMED_OUT;

impl Body {
    /// Breaks off unless it has ended by then.
    pub(crate) fn until(self, deadline: Instant) -> Self {
        match self {
            in_hand @ (Self::Empty | Self::Full(_)) => in_hand,
            stream @ Self::Stream(_) => Self::stream(Timed { body: stream, end: Box::pin(sleep_until(deadline)) }),
        }
    }
}

struct Timed {
    body: Body,
    end: Pin<Box<Sleep>>,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        self.end.as_mut().poll(cx).map(|()| Some(Err(TIMED_OUT.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_halfway_breaks_off_in_time() {
        let frame = Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"x")));
        let stuck = Body::stream(StreamBody::new(stream::iter([frame]).chain(stream::pending())));
        let began = Instant::now();
        let error = stuck.until(began + Duration::from_secs(3)).collect(10).await.expect_err("it never ends");
        assert_eq!(error.to_string(), "body could not be read: context deadline exceeded");
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        assert_eq!(Body::from("x").until(began).collect(10).await.expect("it is here"), "x");
    }
}
