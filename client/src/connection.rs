//! The task that keeps the connection: it reads the control stream, makes lost connections again and says goodbye.

use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;
use quipu_protocol::code::Code;
use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::proto;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::backoff::{Backoff, seed};
use crate::config::ClientConfig;
use crate::connect::{ConnectError, Connected, connect};
use crate::error::{Lost, Refusal};
use crate::link::Link;
use crate::stream::{Broken, Setback, StreamError};

/// For everything that is left to do once a client closes, and for the router's answer to `Goodbye`.
pub(crate) const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Longest that a router's `Goaway` is obeyed without it closing the connection.
const GRACE_MAX: Duration = Duration::from_secs(600);

type CloseOrders = mpsc::Receiver<oneshot::Sender<()>>;

/// How a connection came to its end.
enum End {
    /// Make another.
    Lost(Setback),
    /// As ordered.
    Closed(oneshot::Sender<()>),
    /// Nobody uses this client any more.
    Abandoned,
    /// Another would end the same.
    Final(Lost),
}

pub(crate) async fn keep(
    config: Arc<ClientConfig>,
    mut connected: Connected,
    link: watch::Sender<Link>,
    mut orders: CloseOrders,
) {
    let mut backoff = Backoff::new(config.reconnect, seed());
    let lost = loop {
        let since = Instant::now();
        link.send_replace(Link::Up(connected.session.clone()));
        let end = Control { connected: &mut connected, link: &link }.run(&mut orders).await;
        // Whatever of it still lives: one without its control stream is of no use.
        close(&connected);
        if since.elapsed() > config.reconnect.delay_max {
            // One that is lost again at once is none: the time until giving up goes on.
            backoff.reset();
        }
        let end = match end {
            End::Lost(setback) => {
                tracing::warn!(setback.why, "connection lost");
                link.send_replace(Link::Down);
                match again(&config, &mut backoff, setback, &mut orders).await {
                    Ok(next) => {
                        connected = next;
                        continue;
                    }
                    Err(end) => end,
                }
            }
            end => end,
        };
        match end {
            End::Closed(done) => {
                link.send_replace(Link::Gone(Lost::Closed));
                // Who asked may wait no longer.
                done.send(()).ok();
                return;
            }
            End::Final(lost) => break lost,
            End::Abandoned | End::Lost(_) => break Lost::Closed,
        }
    };
    tracing::debug!(%lost, "client ends");
    link.send_replace(Link::Gone(lost));
}

/// Connects again; pauses, gives up and obeys orders.
async fn again(
    config: &ClientConfig,
    backoff: &mut Backoff,
    mut last: Setback,
    orders: &mut CloseOrders,
) -> Result<Connected, End> {
    let after = config.reconnect.give_up_after;
    loop {
        let Some(pause) = backoff.pause(std::time::Instant::now()) else {
            return Err(End::Final(Lost::GaveUp { after, last: last.why }));
        };
        let attempt = async {
            tokio::time::sleep(pause.max(last.after.min(after))).await;
            connect(config).await
        };
        let attempt = tokio::select! {
            attempt = attempt => attempt,
            order = orders.recv() => return Err(order.map_or(End::Abandoned, End::Closed)),
        };
        match attempt {
            Ok(connected) => return Ok(connected),
            Err(ConnectError::Refused(refusal)) if refusal.retryable => last = (&refusal).into(),
            Err(e) if e.is_retryable() => last = e.to_string().into(),
            Err(ConnectError::Refused(refusal)) => return Err(End::Final(Lost::Refused(refusal))),
            Err(e) => return Err(End::Final(Lost::Protocol(e.to_string()))),
        }
    }
}

/// One connection's control stream.
struct Control<'a> {
    connected: &'a mut Connected,
    link: &'a watch::Sender<Link>,
}

/// What a frame on the control stream asks for.
enum Asked {
    Nothing,
    Leave { grace: Duration, reason: String },
    Goodbye,
}

impl Control<'_> {
    async fn run(&mut self, orders: &mut CloseOrders) -> End {
        loop {
            let Connected { writer, frames, .. } = &mut *self.connected;
            tokio::select! {
                next = frames.next() => match self.handle(next) {
                    Ok(Asked::Nothing) => {}
                    Ok(Asked::Leave { grace, reason }) => {
                        self.leave(Link::Draining, grace.min(GRACE_MAX)).await;
                        return End::Lost(format!("the router goes away: {reason}").into());
                    }
                    Ok(Asked::Goodbye) => return End::Lost(String::from("the router said goodbye").into()),
                    Err(Broken::Retry(setback)) => return End::Lost(setback),
                    Err(Broken::Final(lost)) => return End::Final(lost),
                },
                order = orders.recv() => {
                    let Some(done) = order else { return End::Abandoned };
                    self.leave(Link::Closing, CLOSE_WAIT).await;
                    return End::Closed(done);
                }
                written = writer.write_some(), if writer.waiting_bytes() > 0 => {
                    if let Err(e) = written {
                        return End::Lost(e.to_string().into());
                    }
                }
            }
        }
    }

    fn handle(&mut self, next: Option<Result<Frame, StreamError>>) -> Result<Asked, Broken> {
        let frame = match next {
            Some(Ok(frame)) => frame,
            ended => return Err(Broken::ended(ended.and_then(Result::err).as_ref())),
        };
        match frame.body {
            Body::Ping(proto::Ping { nonce, answer: false }) => {
                self.connected.writer.push(proto::Ping { nonce, answer: true });
                Ok(Asked::Nothing)
            }
            Body::Ping(_) => Ok(Asked::Nothing),
            Body::Goaway(proto::Goaway { reason, grace_ms }) => {
                Ok(Asked::Leave { grace: Duration::from_millis(grace_ms), reason })
            }
            Body::Goodbye(_) => Ok(Asked::Goodbye),
            Body::Error(error) => Err(Broken::refused(Refusal::from(error))),
            _ => Err(Broken::unexpected(&frame)),
        }
    }

    /// Waits for the streams to end, exchanges `Goodbye` and closes the connection; closes it anyway once the time is
    /// over.
    async fn leave(&mut self, how: Link, wait: Duration) {
        self.link.send_replace(how);
        let streams = self.connected.session.streams.clone();
        streams.close();
        let deadline = Instant::now() + wait;
        let farewell = async {
            self.serve_until(streams.wait()).await?;
            self.connected.writer.push(proto::Goodbye {});
            self.serve_until(std::future::pending()).await
        };
        if tokio::time::timeout_at(deadline, farewell).await.is_err() {
            tracing::debug!("left without the router's goodbye");
        }
        close(self.connected);
        // Where the process ends right away, the close itself would not be sent.
        tokio::time::timeout_at(deadline, self.connected.session.endpoint.wait_idle()).await.ok();
    }

    /// Goes on with the control stream until something is done (true), or the router said goodbye or is gone.
    async fn serve_until(&mut self, done: impl Future<Output = ()>) -> Option<()> {
        tokio::pin!(done);
        loop {
            let Connected { writer, frames, .. } = &mut *self.connected;
            tokio::select! {
                () = &mut done => return Some(()),
                next = frames.next() => match self.handle(next) {
                    Ok(Asked::Nothing | Asked::Leave { .. }) => {}
                    Ok(Asked::Goodbye) | Err(_) => return None,
                },
                written = writer.write_some(), if writer.waiting_bytes() > 0 => written.ok()?,
            }
        }
    }
}

fn close(connected: &Connected) {
    connected.session.connection.close(VarInt::from_u32(Code::Goodbye as u32), b"goodbye");
}
