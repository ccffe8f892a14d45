//! One request on its way through the door: who sent it, how long it may take.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{body::Bytes, extract::Request, http::HeaderMap};
use llambo_inference::{InferenceEngine, ModelName, RequestId};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{
    answer::Deadline,
    caller::Caller,
    door::{Door, new_request_id},
    http::{
        failure::ApiError,
        meter::Outcome,
        openai::tier::{self, ServedBy},
        reading::{json_bytes, parse},
    },
};

/// Milliseconds that the whole request may take.
const TIMEOUT_MS: &str = "llambo-timeout-ms";
/// Seconds that OpenAI's clients wait: for a whole answer, or for the beginning of a stream.
const CLIENT_TIMEOUT: &str = "x-stainless-timeout";
/// Longer timeouts are none: instants have an end.
const MAX_TIMEOUT: Duration = Duration::from_hours(24 * 30);

/// A request whose body was read.
pub(super) struct Received {
    pub(super) door: Door,
    pub(super) id: RequestId,
    pub(super) caller: Caller,
    pub(super) outcome: Outcome,
    pub(super) at: Instant,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// What the whole request may take.
    timeout: Option<Duration>,
    /// The tier that should serve it.
    pub(super) tier: Option<u8>,
    /// Who serves it.
    pub(super) served_by: ServedBy,
    /// What its client waits without hearing anything.
    patience: Option<Duration>,
    body: Bytes,
}

impl Received {
    /// Reads the body.
    pub(super) async fn read(door: &Door, request: Request) -> Result<Self, ApiError> {
        let at = Instant::now();
        let headers = request.headers();
        let extensions = request.extensions();
        let received = Self {
            id: extensions.get().cloned().unwrap_or_else(new_request_id),
            caller: Caller::of(extensions),
            outcome: extensions.get().cloned().unwrap_or_default(),
            at,
            created: seconds_since_1970(),
            timeout: our_timeout(headers)?,
            patience: timeout(headers, CLIENT_TIMEOUT, 1.0),
            tier: tier::asked(headers)?,
            served_by: ServedBy::default(),
            body: Bytes::new(),
            door: door.clone(),
        };
        Ok(Self { body: json_bytes(request, door.max_request_bytes).await?, ..received })
    }

    /// Some of the fields of the body. Others are left out, so that one body can be read as several things.
    pub(super) fn fields<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        parse(&self.body)
    }

    /// When an answer must have ended.
    pub(super) fn deadline(&self, streams: bool) -> Option<Deadline> {
        let patience = self.patience.filter(|_| !streams);
        let timeout = [self.timeout, patience].into_iter().flatten().min();
        timeout.map(|timeout| Deadline::new(self.at, timeout))
    }

    /// When an answer must have begun: nobody listens any more afterwards.
    pub(super) fn must_begin(&self) -> Option<Deadline> {
        self.patience.map(|patience| Deadline::new(self.at, patience))
    }

    /// The engine behind a model's name, which knows its tokens.
    pub(super) fn engine(&self, model: Option<&ModelName>) -> Result<Arc<dyn InferenceEngine>, ApiError> {
        Ok(self.door.engine_for(&self.caller, model)?.1)
    }
}

/// What the whole request may take. Our own header, so that what is no time is a mistake that is told.
fn our_timeout(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let timeout = timeout(headers, TIMEOUT_MS, 1e-3);
    if timeout.is_none() && headers.contains_key(TIMEOUT_MS) {
        let what = format!("the header `{TIMEOUT_MS}` must be a number of milliseconds above 0, and at most 30 days");
        return Err(ApiError::invalid(what).param(TIMEOUT_MS));
    }
    Ok(timeout)
}

/// A header's number of `unit` seconds; what is no time counts as none.
fn timeout(headers: &HeaderMap, name: &str, unit: f64) -> Option<Duration> {
    let number: f64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
    let timeout = Duration::try_from_secs_f64(number * unit).ok()?;
    (Duration::ZERO < timeout && timeout < MAX_TIMEOUT).then_some(timeout)
}

/// Now, as answers tell it.
pub(super) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What answers of one model have in common, as long as its file is the same.
pub(super) fn fingerprint(engine: &dyn InferenceEngine) -> Option<String> {
    engine.info().digest.get(..10).map(|begin| format!("fp_{begin}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_time_counts_as_none() {
        let read = |value: &str| timeout(&HeaderMap::from_iter([("t".parse().unwrap(), value.parse().unwrap())]), "t", 1.0);
        assert_eq!(read("600"), Some(Duration::from_mins(10)));
        assert_eq!(read("0.5"), Some(Duration::from_millis(500)));
        for none in ["0", "-1", "NaN", "inf", "1e300", "", "None", "600s"] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }
}
