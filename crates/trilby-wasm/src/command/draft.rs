//! The draft of `wasi:http` that preview 1 programs speak with Dapr: made by hand from the interface of early 2023, before
//! there were components. Three modules, handles that are plain numbers, and memory that the host asks the program for.
//!
//! Only what a client needs is here; a draft of a server stands beside it that no command can use.

use std::collections::HashMap;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use wasmtime::{Caller, Extern, Linker, Memory, format_err};
use wasmtime_wasi_http::WasiBody;

use super::link::ModuleState;
use super::outgoing::Outgoing;
use crate::limits::Limits;

/// The module whose function sends a request. Programs that import it speak HTTP.
pub(super) const HANDLER: &str = "default-outgoing-HTTP";
const TYPES: &str = "types";
const STREAMS: &str = "streams";

/// Bytes that a program is given at a time, at most.
const CHUNK: usize = 64 << 10;

/// Methods by their number in the draft.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// What one run holds of requests and answers.
pub(super) struct Draft {
    outgoing: Outgoing,
    things: HashMap<u32, Thing>,
    last: u32,
    max_things: usize,
    /// The most that the bodies of requests may have, which the host holds for the program.
    body_bytes_left: usize,
}

enum Thing {
    Fields(HeaderMap),
    Request {
        method: Method,
        uri: Uri,
        fields: u32,
        body: BytesMut,
    },
    Response {
        status: StatusCode,
        headers: HeaderMap,
        body: Option<WasiBody>,
    },
    /// The body of a request, by its handle.
    Writing(u32),
    /// The body of an answer, and what of it was received and not read.
    Reading {
        body: WasiBody,
        rest: Bytes,
    },
}

type State<'a> = Caller<'a, ModuleState>;

impl Draft {
    pub(super) fn new(outgoing: Outgoing, limits: &Limits) -> Self {
        Self {
            outgoing,
            things: HashMap::new(),
            last: 0,
            max_things: limits.resources,
            body_bytes_left: limits.memory_bytes,
        }
    }

    fn add(&mut self, thing: Thing) -> wasmtime::Result<u32> {
        if self.things.len() >= self.max_things {
            return Err(format_err!("program holds more than {} things of HTTP, the limit", self.max_things));
        }
        self.last += 1;
        self.things.insert(self.last, thing);
        Ok(self.last)
    }

    fn fields(&self, handle: u32) -> HeaderMap {
        match self.things.get(&handle) {
            Some(Thing::Fields(fields)) => fields.clone(),
            _ => HeaderMap::new(),
        }
    }

    fn write(&mut self, stream: u32, bytes: &[u8]) -> wasmtime::Result<()> {
        let Some(Thing::Writing(request)) = self.things.get(&stream) else { return Err(unknown("stream", stream)) };
        let request = *request;
        let Some(left) = self.body_bytes_left.checked_sub(bytes.len()) else {
            return Err(format_err!("program sends more by HTTP than it may have memory"));
        };
        let Some(Thing::Request { body, .. }) = self.things.get_mut(&request) else {
            return Err(unknown("request", request));
        };
        body.extend_from_slice(bytes);
        self.body_bytes_left = left;
        Ok(())
    }

    /// Sends a request; the handle of its answer, or 0 if there is none, which is all that the draft can say.
    async fn handle(&mut self, request: u32) -> wasmtime::Result<u32> {
        let Some(Thing::Request { method, uri, fields, body }) = self.things.get_mut(&request) else { return Ok(0) };
        let body = Full::new(std::mem::take(body).freeze()).map_err(|never| match never {}).boxed_unsync();
        let mut sent = Request::new(body);
        (*sent.method_mut(), *sent.uri_mut()) = (method.clone(), uri.clone());
        let fields = *fields;
        *sent.headers_mut() = self.fields(fields);
        match self.outgoing.send(sent).await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                self.add(Thing::Response { status: head.status, headers: head.headers, body: Some(body) })
            }
            Err(error) => {
                tracing::debug!(%error, "request of a program has no answer");
                Ok(0)
            }
        }
    }

    /// Some bytes of a body; none at its end.
    async fn read(&mut self, stream: u32, most: usize) -> wasmtime::Result<Bytes> {
        let Some(Thing::Reading { body, rest }) = self.things.get_mut(&stream) else {
            return Err(unknown("stream", stream));
        };
        while !rest.has_remaining() {
            match body.frame().await {
                None => return Ok(Bytes::new()),
                Some(frame) => *rest = frame?.into_data().unwrap_or_default(),
            }
        }
        Ok(rest.split_to(rest.len().min(most)))
    }
}

/// Adds the three modules.
pub(super) fn add_to_linker(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    add_fields(linker)?;
    add_requests(linker)?;
    add_responses(linker)?;
    add_streams(linker)
}

fn add_fields(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    linker.func_wrap(TYPES, "new-fields", |mut state: State<'_>, at: u32, count: u32| {
        let list = copy(&mut state, at, count.saturating_mul(16))?;
        let mut fields = HeaderMap::new();
        for entry in list.chunks_exact(16) {
            let [name, name_len, value, value_len] = [0, 4, 8, 12].map(|at| word(&entry[at..]));
            let name = HeaderName::from_bytes(&copy(&mut state, name, name_len)?)?;
            fields.append(name, HeaderValue::from_bytes(&copy(&mut state, value, value_len)?)?);
        }
        draft(&mut state)?.add(Thing::Fields(fields))
    })?;
    linker.func_wrap_async(TYPES, "fields-entries", |mut state: State<'_>, (fields, to): (u32, u32)| {
        Box::new(async move {
            let fields = draft(&mut state)?.fields(fields);
            let mut list = Vec::with_capacity(fields.len() * 16);
            for (name, value) in &fields {
                for text in [name.as_str().as_bytes(), value.as_bytes()] {
                    let at = give(&mut state, text).await?;
                    list.extend([at, size(text)].map(u32::to_le_bytes).concat());
                }
            }
            let at = give(&mut state, &list).await?;
            put(&mut state, to, &[at, size(&list) / 16])
        })
    })?;
    drop_with(linker, TYPES, "drop-fields")
}

/// Method, path, query, scheme and authority, each as the draft's interface comes out flat, and the fields.
#[rustfmt::skip]
type Parts = (u32, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32);

fn add_requests(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(TYPES, "new-outgoing-request", |mut state: State<'_>, parts: Parts| {
        Box::new(async move {
            let (method, _, _, path, path_len, query, query_len, has_scheme, scheme, .., fields) = parts;
            let (.., authority, authority_len, _) = parts;
            let method = METHODS.get(method as usize).cloned().ok_or_else(|| unknown("method", method))?;
            let scheme = if has_scheme == 1 && scheme == 0 { "http" } else { "https" };
            let mut text = |at, len| Ok::<_, wasmtime::Error>(String::from_utf8(copy(&mut state, at, len)?)?);
            let (authority, path, query) =
                (text(authority, authority_len)?, text(path, path_len)?, text(query, query_len)?);
            let uri = format!("{scheme}://{authority}{path}{query}").parse()?;
            draft(&mut state)?.add(Thing::Request { method, uri, fields, body: BytesMut::new() })
        })
    })?;
    linker.func_wrap(TYPES, "outgoing-request-write", |mut state: State<'_>, request: u32, to: u32| {
        let stream = draft(&mut state)?.add(Thing::Writing(request))?;
        put(&mut state, to, &[0, stream])
    })?;
    // Behind the request stand its options, which Dapr does not look at.
    type Handle = (u32, u32, u32, u32, u32, u32, u32, u32);
    linker.func_wrap_async(HANDLER, "handle", |mut state: State<'_>, (request, ..): Handle| {
        Box::new(async move { draft(&mut state)?.handle(request).await })
    })?;
    drop_with(linker, TYPES, "drop-outgoing-request")
}

fn add_responses(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    // An answer is there when its handle is.
    linker.func_wrap(TYPES, "future-incoming-response-get", |mut state: State<'_>, response: u32, to: u32| {
        put(&mut state, to, &[1, 0, response])
    })?;
    linker.func_wrap(TYPES, "incoming-response-status", |mut state: State<'_>, response: u32| {
        Ok(match draft(&mut state)?.things.get(&response) {
            Some(Thing::Response { status, .. }) => u32::from(status.as_u16()),
            _ => 0,
        })
    })?;
    linker.func_wrap(TYPES, "incoming-response-headers", |mut state: State<'_>, response: u32| {
        let draft = draft(&mut state)?;
        match draft.things.get_mut(&response) {
            Some(Thing::Response { headers, .. }) => {
                let headers = std::mem::take(headers);
                draft.add(Thing::Fields(headers))
            }
            _ => Ok(0),
        }
    })?;
    linker.func_wrap(TYPES, "incoming-response-consume", |mut state: State<'_>, response: u32, to: u32| {
        let draft = draft(&mut state)?;
        let body = match draft.things.get_mut(&response) {
            Some(Thing::Response { body, .. }) => body.take(),
            _ => None,
        };
        let answer = match body {
            Some(body) => [0, draft.add(Thing::Reading { body, rest: Bytes::new() })?],
            None => [1, 0],
        };
        put(&mut state, to, &answer)
    })?;
    drop_with(linker, TYPES, "drop-incoming-response")
}

fn add_streams(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(STREAMS, "read", |mut state: State<'_>, (stream, most, to): (u32, u64, u32)| {
        Box::new(async move {
            let most = usize::try_from(most).unwrap_or(CHUNK).min(CHUNK);
            let bytes = draft(&mut state)?.read(stream, most).await?;
            let at = give(&mut state, &bytes).await?;
            let more = u32::from(!bytes.is_empty());
            put(&mut state, to, &[0, at, size(&bytes), more])
        })
    })?;
    linker.func_wrap(STREAMS, "write", |mut state: State<'_>, stream: u32, at: u32, len: u32, to: u32| {
        let bytes = copy(&mut state, at, len)?;
        draft(&mut state)?.write(stream, &bytes)?;
        put(&mut state, to, &[0, len])
    })?;
    drop_with(linker, STREAMS, "drop-input-stream")
}

fn drop_with(linker: &mut Linker<ModuleState>, module: &str, name: &str) -> wasmtime::Result<()> {
    linker.func_wrap(module, name, |mut state: State<'_>, handle: u32| {
        draft(&mut state)?.things.remove(&handle);
        wasmtime::Result::Ok(())
    })?;
    Ok(())
}

fn draft<'a>(state: &'a mut State<'_>) -> wasmtime::Result<&'a mut Draft> {
    state.data_mut().draft.as_deref_mut().ok_or_else(|| format_err!("program does not speak HTTP"))
}

fn unknown(what: &str, handle: u32) -> wasmtime::Error {
    format_err!("program names the {what} {handle}, which it does not have")
}

fn memory(state: &mut State<'_>) -> wasmtime::Result<Memory> {
    state.get_export("memory").and_then(Extern::into_memory).ok_or_else(|| format_err!("program exports no memory"))
}

fn copy(state: &mut State<'_>, at: u32, len: u32) -> wasmtime::Result<Vec<u8>> {
    let memory = memory(state)?.data(&*state);
    let bytes = memory.get(at as usize..).and_then(|rest| rest.get(..len as usize));
    bytes.map(<[u8]>::to_vec).ok_or_else(|| format_err!("program names {len} bytes at {at}, outside of its memory"))
}

/// Writes numbers to where the program wants its answer.
fn put(state: &mut State<'_>, at: u32, words: &[u32]) -> wasmtime::Result<()> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    Ok(memory(state)?.write(state, at as usize, &bytes)?)
}

/// Writes bytes to memory that the program's own allocator finds.
async fn give(state: &mut State<'_>, bytes: &[u8]) -> wasmtime::Result<u32> {
    let allocate = state.get_export("cabi_realloc").and_then(Extern::into_func);
    let allocate = allocate.ok_or_else(|| format_err!("program exports no cabi_realloc"))?;
    let allocate = allocate.typed::<(u32, u32, u32, u32), u32>(&*state)?;
    let at = allocate.call_async(&mut *state, (0, 0, 4, size(bytes))).await?;
    memory(state)?.write(state, at as usize, bytes)?;
    Ok(at)
}

fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
