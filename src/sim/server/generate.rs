//! Completions and chat: from a checked request to the bytes of the answer.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use futures::Stream;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Sleep, sleep},
};

use super::{
    answer::{Answer, Api, Shape},
    driver::{ChoiceToken, Command, DriverHandle, Sink},
    error::{ApiError, json_response},
    protocol::{Delivery, Generation, SamplingChoice, StreamUsage},
    routes::{App, next, unix_s},
};
use crate::{
    plan::sim_spec::Fault,
    sim::{
        engine::SubmitError,
        hash::mix,
        request::{Sampling, SimRequest},
    },
};

/// Tokens that a stream gets before `cut-stream` cuts it.
const TOKENS_BEFORE_CUT: u32 = 3;
/// Time between them and the cut.
const PAUSE_BEFORE_CUT: Duration = Duration::from_millis(5);

/// Answers a request.
pub(super) async fn respond(
    app: Arc<App>,
    api: Api,
    generation: Generation,
) -> Result<Response, ApiError> {
    let every = u64::from(app.spec.fault_every_requests);
    let is_hit = next(&app.generations).is_multiple_of(every);
    if is_hit && app.spec.has(Fault::Http500) {
        return Err(ApiError::engine_dead());
    }
    let answer = Answer::new(
        shape(&app, api, &generation),
        &generation.prompts,
        generation.copies,
    );
    let (delivery, unfinished) = (generation.delivery, answer.unfinished());
    let mut tokens = submit(&app, api, generation, unfinished)?;
    match delivery {
        Delivery::Whole => whole(answer, tokens).await,
        Delivery::Stream(_) => {
            // What the engine refuses must be an error answer, not a broken stream.
            let first = tokens.first().await?;
            let cut_after = (is_hit && app.spec.has(Fault::CutStream)).then_some(TOKENS_BEFORE_CUT);
            Ok(stream(answer, tokens, first, cut_after))
        }
    }
}

fn shape(app: &App, api: Api, generation: &Generation) -> Shape {
    let id = match &generation.request_id {
        Some(id) => format!("{}{id}", api.id_prefix()),
        None => format!("{}{:016x}", api.id_prefix(), fresh_id(app)),
    };
    Shape {
        api,
        vocabulary: app.vocabulary,
        id: serde_json::Value::from(id).to_string(),
        created_s: unix_s(),
        model: serde_json::Value::from(app.identity.served_model.as_str()).to_string(),
        fingerprint: format!("vllm-{}", app.identity.version),
        usage: match generation.delivery {
            Delivery::Stream(usage) => usage,
            Delivery::Whole => StreamUsage::Omit,
        },
        token_ids: generation.token_ids,
        logprobs: generation.logprobs,
        stream_interval: generation.stream_interval,
    }
}

/// A number that looks random and differs from process to process.
pub(super) fn fresh_id(app: &App) -> u64 {
    let start = app.identity.created_s.to_bits() ^ u64::from(std::process::id());
    mix(start, next(&app.next_id))
}

/// Hands every choice to the engine.
fn submit(
    app: &Arc<App>,
    api: Api,
    generation: Generation,
    choices: usize,
) -> Result<Tokens, ApiError> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut tokens = Tokens {
        receiver,
        refusals: Vec::with_capacity(choices),
        unfinished: Abort {
            driver: app.driver.clone(),
            ids: Vec::with_capacity(choices),
        },
    };
    let name = generation
        .request_id
        .unwrap_or_else(|| format!("{:016x}", fresh_id(app)));
    let copies = generation.copies;
    let of_prompts = generation
        .prompts
        .into_iter()
        .flat_map(|prompt| std::iter::repeat_n(prompt, copies));
    for (choice, prompt) in of_prompts.enumerate() {
        let id = next(&app.next_id);
        let room = app.max_model_len - prompt.len() as u32;
        let sampling = match generation.sampling {
            SamplingChoice::Fixed(sampling) => sampling,
            SamplingChoice::AnySeed => Sampling::Seeded(id),
        };
        let suffix = mix(id, 0) as u32;
        let request = SimRequest {
            id,
            name: format!("{}{name}-{choice}-{suffix:08x}", api.id_prefix()),
            prompt,
            max_tokens: generation.max_tokens.unwrap_or(room).min(room),
            min_tokens: generation.min_tokens,
            end_token: generation.end_token,
            sampling,
            cache_salt: generation.cache_salt,
            tier_namespace: generation.tier_namespace,
            save: generation.save,
        };
        let (refused, refusal) = oneshot::channel();
        let sink = Sink {
            choice,
            sender: sender.clone(),
        };
        if !app.driver.send(Command::Submit {
            request,
            sink,
            refused,
        }) {
            return Err(ApiError::engine_dead());
        }
        tokens.refusals.push(refusal);
        tokens.unfinished.ids.push(id);
    }
    Ok(tokens)
}

/// Tokens on their way from the engine; dropping it aborts what is unfinished.
struct Tokens {
    receiver: mpsc::UnboundedReceiver<ChoiceToken>,
    refusals: Vec<oneshot::Receiver<SubmitError>>,
    unfinished: Abort,
}

impl Tokens {
    /// The first token, or why there is none.
    async fn first(&mut self) -> Result<ChoiceToken, ApiError> {
        self.receiver.recv().await.ok_or_else(|| self.reason())
    }

    fn reason(&mut self) -> ApiError {
        let refusal = self
            .refusals
            .iter_mut()
            .find_map(|refusal| refusal.try_recv().ok());
        refusal.map_or_else(ApiError::engine_dead, |error| {
            ApiError::bad_request(error.to_string(), Some("prompt"))
        })
    }
}

/// Aborts requests when it is dropped: the client is gone.
struct Abort {
    driver: DriverHandle,
    ids: Vec<u64>,
}

impl Drop for Abort {
    fn drop(&mut self) {
        for &id in &self.ids {
            self.driver.send(Command::Abort(id));
        }
    }
}

async fn whole(mut answer: Answer, mut tokens: Tokens) -> Result<Response, ApiError> {
    while answer.unfinished() > 0 {
        match tokens.receiver.recv().await {
            Some(token) => answer.collect(&token),
            None => return Err(tokens.reason()),
        }
    }
    tokens.unfinished.ids.clear();
    Ok(json_response(StatusCode::OK, answer.whole()))
}

fn stream(
    mut answer: Answer,
    tokens: Tokens,
    first: ChoiceToken,
    cut_after: Option<u32>,
) -> Response {
    let ready = answer.push(&first).into_iter().collect();
    let events = Events {
        answer,
        tokens,
        ready,
        sent: 1,
        cut_after,
        pause: None,
        end: End::Ahead,
    };
    let mut response = Response::new(Body::from_stream(events));
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Whether the end of a stream was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Ahead,
    Sent,
}

/// Server-sent events, one write each.
struct Events {
    answer: Answer,
    tokens: Tokens,
    ready: VecDeque<String>,
    sent: u32,
    cut_after: Option<u32>,
    /// The time before the cut.
    pause: Option<Pin<Box<Sleep>>>,
    end: End,
}

impl Stream for Events {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(event.into())));
            }
            if this.cut_after.is_some_and(|limit| this.sent >= limit) {
                // What was written before leaves only while there is nothing more to write.
                let pause = || Box::pin(sleep(PAUSE_BEFORE_CUT));
                if this
                    .pause
                    .get_or_insert_with(pause)
                    .as_mut()
                    .poll(task)
                    .is_pending()
                {
                    return Poll::Pending;
                }
                this.cut_after = None;
                return Poll::Ready(Some(Err(io::Error::other("simulated fault: cut-stream"))));
            }
            if this.end == End::Sent {
                return Poll::Ready(None);
            }
            if this.answer.unfinished() == 0 {
                this.tokens.unfinished.ids.clear();
                this.end = End::Sent;
                this.ready.push_back(this.answer.stream_end());
                continue;
            }
            match this.tokens.receiver.poll_recv(task) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(token)) => {
                    this.sent += 1;
                    this.ready.extend(this.answer.push(&token));
                }
                Poll::Ready(None) => {
                    let gone = io::Error::other("the engine is gone");
                    return Poll::Ready(Some(Err(gone)));
                }
            }
        }
    }
}
