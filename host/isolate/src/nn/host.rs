//! The four interfaces of `wasi:nn`, as guests call them. Every call is charged to the guest's budget.

use llambo_inference::{Embedding, GenerateRequest, InferenceEngine, InferenceError, ModelName, Prompt, Sampling};
use std::{sync::Arc, time::Instant};
use wasmtime::{Result, component::Resource};

use super::{DEFAULT, ExecutionContext, Graph, NnError, Output, Session, SessionInput, Tensor};
use crate::{
    bindings::wasi::nn::{errors, errors::ErrorCode, graph, inference, tensor, tensor::TensorType},
    journal::Fingerprint,
    state::GuestState,
};

type Named = (String, Resource<Tensor>);

/// Bytes of host memory that reading one byte of `messages` can take: many small ones are the worst there is.
const READ_FACTOR: usize = 16;

impl tensor::Host for GuestState {}

impl tensor::HostTensor for GuestState {
    fn new(&mut self, dimensions: Vec<u32>, ty: TensorType, data: Vec<u8>) -> Result<Resource<Tensor>> {
        self.budget.charge_call()?;
        self.hold(Tensor { dimensions, ty, data })
    }

    fn dimensions(&mut self, this: Resource<Tensor>) -> Result<Vec<u32>> {
        self.budget.charge_call()?;
        Ok(self.table.get(&this)?.dimensions.clone())
    }

    fn ty(&mut self, this: Resource<Tensor>) -> Result<TensorType> {
        self.budget.charge_call()?;
        Ok(self.table.get(&this)?.ty)
    }

    fn data(&mut self, this: Resource<Tensor>) -> Result<Vec<u8>> {
        self.budget.charge_call()?;
        Ok(self.table.get(&this)?.data.clone())
    }

    fn drop(&mut self, this: Resource<Tensor>) -> Result<()> {
        self.take(this).map(drop)
    }
}

impl graph::Host for GuestState {
    fn load(
        &mut self,
        _builder: Vec<Vec<u8>>,
        _encoding: graph::GraphEncoding,
        _target: graph::ExecutionTarget,
    ) -> Result<std::result::Result<Resource<Graph>, Resource<NnError>>> {
        self.budget.charge_call()?;
        let data = "models are loaded by the host's configuration; use load-by-name".to_owned();
        self.fail(NnError { code: ErrorCode::UnsupportedOperation, data })
    }

    fn load_by_name(&mut self, name: String) -> Result<std::result::Result<Resource<Graph>, Resource<NnError>>> {
        self.budget.charge_call()?;
        match self.model_named(&name) {
            Ok(model) => Ok(Ok(self.hold(Graph { model })?)),
            Err(error) => self.fail_inference(error),
        }
    }
}

impl graph::HostGraph for GuestState {
    fn init_execution_context(
        &mut self,
        this: Resource<Graph>,
    ) -> Result<std::result::Result<Resource<ExecutionContext>, Resource<NnError>>> {
        self.budget.charge_call()?;
        let model = self.table.get(&this)?.model.clone();
        Ok(Ok(self.hold(ExecutionContext { model })?))
    }

    fn drop(&mut self, this: Resource<Graph>) -> Result<()> {
        self.take(this).map(drop)
    }
}

impl inference::Host for GuestState {}

impl inference::HostGraphExecutionContext for GuestState {
    async fn compute(
        &mut self,
        this: Resource<ExecutionContext>,
        inputs: Vec<Named>,
    ) -> Result<std::result::Result<Vec<Named>, Resource<NnError>>> {
        self.budget.charge_call()?;
        let mut tensors = Vec::with_capacity(inputs.len());
        for (name, handle) in inputs {
            tensors.push((name, self.take(handle)?));
        }
        let context = this.rep();
        let model = self.table.get(&this)?.model.clone();
        self.call()?.last_error = None;
        let of_messages = tensors.iter().filter(|(name, _)| name == "messages").map(|(_, tensor)| tensor.data.len());
        let read_bytes = of_messages.sum::<usize>().saturating_mul(READ_FACTOR);
        self.budget.hold(read_bytes)?;
        let read = SessionInput::read(tensors);
        self.budget.release(read_bytes);
        match read {
            Err(error) => return self.fail(error),
            Ok(None) => {}
            Ok(Some(input)) => {
                self.give_up(context);
                let engine = match self.engine(model) {
                    Ok(engine) => engine,
                    Err(error) => return self.fail_inference(error),
                };
                if input.options.embedding {
                    return self.embed(engine, input.prompt).await;
                }
                let SessionInput { prompt, options, numbered } = input;
                let sampling = move |defaults: &Sampling| Ok(options.sampling.resolve(defaults)?);
                match self.generate(engine, prompt, sampling, options.stream, numbered).await? {
                    Ok(session) => self.begin_session(context, session)?,
                    Err(error) => return self.fail_inference(error),
                }
            }
        }
        let began = Instant::now();
        let Some(session) = self.call()?.sessions.get_mut(&context) else {
            return self.fail(NnError::invalid("there is no tensor `prompt`, and no generation goes on here"));
        };
        let next = session.next().await;
        let numbered = session.numbered();
        metrics::histogram!("llambo_isolate_nn_compute_seconds").record(began.elapsed().as_secs_f64());
        match next {
            Ok(output) => {
                self.note_tokens(output.n_tokens)?;
                let call = self.call()?;
                if let Some(finished) = output.finished {
                    call.usage += finished.usage;
                    call.sessions.remove(&context);
                }
                self.tensors(output, numbered).map(Ok)
            }
            Err(error) => {
                self.give_up(context);
                self.fail_inference(error)
            }
        }
    }

    fn drop(&mut self, this: Resource<ExecutionContext>) -> Result<()> {
        self.give_up(this.rep());
        self.take(this).map(drop)
    }
}

impl errors::Host for GuestState {}

impl errors::HostError for GuestState {
    fn code(&mut self, this: Resource<NnError>) -> Result<ErrorCode> {
        self.budget.charge_call()?;
        Ok(self.table.get(&this)?.code)
    }

    fn data(&mut self, this: Resource<NnError>) -> Result<String> {
        self.budget.charge_call()?;
        Ok(self.table.get(&this)?.data.clone())
    }

    fn drop(&mut self, this: Resource<NnError>) -> Result<()> {
        self.take(this).map(drop)
    }
}

// === impl GuestState ===

impl GuestState {
    fn fail<T>(&mut self, error: NnError) -> Result<std::result::Result<T, Resource<NnError>>> {
        Ok(Err(self.hold(error)?))
    }

    /// As `fail`, and remembers the cause: a guest that gives up because of it need not be able to describe it.
    fn fail_inference<T>(&mut self, error: InferenceError) -> Result<std::result::Result<T, Resource<NnError>>> {
        let shown = NnError::from(&error);
        self.call()?.last_error = Some(error);
        self.fail(shown)
    }

    /// What a guest calls a model by; `None` for that of the request at hand.
    pub(crate) fn model_named(&self, name: &str) -> std::result::Result<Option<ModelName>, InferenceError> {
        let model = (name != DEFAULT).then(|| ModelName::from(name));
        if let Some(name) = &model {
            self.models.get(name)?;
        }
        Ok(model)
    }

    pub(crate) fn engine(&mut self, model: Option<ModelName>) -> std::result::Result<Arc<dyn InferenceEngine>, InferenceError> {
        let asked = match (model, &self.call) {
            (Some(model), _) => model,
            (None, Some(call)) => call.model.clone(),
            (None, None) => return Err(InferenceError::InvalidRequest("no request is at hand".into())),
        };
        self.models.get(&asked)
    }

    /// Ends what runs in a context or goes on from a branch.
    pub(crate) fn give_up(&mut self, context: u32) {
        if let Some(call) = self.call.as_mut()
            && let Some(session) = call.sessions.remove(&context)
        {
            call.usage += session.usage_so_far();
        }
    }

    /// Hands a generation to its engine. Templates, tokenizers and grammars need more stack than a guest has, and their time:
    /// they run on a thread that is made for it.
    pub(crate) async fn generate(
        &mut self,
        engine: Arc<dyn InferenceEngine>,
        prompt: Prompt,
        sampling: impl FnOnce(&Sampling) -> std::result::Result<Sampling, InferenceError> + Send + 'static,
        stream: bool,
        numbered: bool,
    ) -> Result<std::result::Result<Session, InferenceError>> {
        let call = self.call()?;
        if let Err(error) = call.may_start() {
            return Ok(Err(error));
        }
        let (id, share, deadline, n_spent) = (call.id.clone(), call.share.clone(), call.deadline, call.n_tokens);
        let place = call.next_place();
        let routing = llambo_inference::Routing { trace: call.trace, ..llambo_inference::Routing::default() };
        // one more than is left: that it was not enough should be seen
        let most = self.budget.tokens().map(|limit| limit.saturating_sub(n_spent).saturating_add(1));
        let counts_kv = self.budget.kv_bytes().is_some();
        let started = tokio::task::spawn_blocking(move || {
            // reading it once more is what counting costs
            let n_begun = if counts_kv { engine.tokens(&prompt)?.len() } else { 0 };
            let kv_bytes_per_token = engine.info().kv_bytes_per_token;
            let mut sampling = sampling(&engine.info().sampling)?;
            sampling.max_tokens = [sampling.max_tokens, most].into_iter().flatten().min();
            let model = engine.info().name.clone();
            let entry = place.begin(Fingerprint::of(&(&model, &prompt)), &mut sampling, None);
            let request = GenerateRequest {
                id,
                model,
                node_type: None,
                prompt,
                sampling,
                share,
                deadline,
                routing,
                priority: llambo_inference::Priority::default(),
                journal: None,
                log: Some(entry.log),
            };
            let session = Session::start(engine.as_ref(), request, stream, numbered)?;
            Ok(session.holding(n_begun, kv_bytes_per_token))
        });
        Ok(started.await.unwrap_or_else(|e| Err(InferenceError::Backend(e.to_string()))))
    }

    async fn embed(
        &mut self,
        engine: Arc<dyn InferenceEngine>,
        prompt: Prompt,
    ) -> Result<std::result::Result<Vec<Named>, Resource<NnError>>> {
        let Prompt::Text(text) = prompt else {
            return self.fail(NnError::invalid("an embedding is of a `prompt`, not of `messages`"));
        };
        match self.embedding(engine, text).await? {
            Ok(embedding) => {
                let tensor = self.hold(Tensor::floats(&embedding.values))?;
                Ok(Ok(vec![("embedding".to_owned(), tensor)]))
            }
            Err(error) => self.fail_inference(error),
        }
    }

    /// An embedding, charged to the request. Reading the text takes as much stack and time as for a generation.
    pub(crate) async fn embedding(
        &mut self,
        engine: Arc<dyn InferenceEngine>,
        text: String,
    ) -> Result<std::result::Result<Embedding, InferenceError>> {
        let asked = tokio::task::spawn_blocking(move || engine.embed(text)).await;
        let embedding = asked.map_err(|e| wasmtime::format_err!("{e}"))?.await;
        if let Ok(embedding) = &embedding {
            self.call()?.usage.input_tokens += embedding.input_tokens;
        }
        Ok(embedding)
    }

    fn tensors(&mut self, output: Output, numbered: bool) -> Result<Vec<Named>> {
        let (text, finish) = if numbered { ("0", "1") } else { ("text", "finish") };
        let mut named = Vec::with_capacity(2);
        if !output.text.is_empty() || output.finished.is_some() {
            named.push((text.to_owned(), self.hold(Tensor::text(output.text))?));
        }
        if let Some(finished) = output.finished {
            let json = serde_json::json!({
                "finish_reason": finished.reason.as_str(),
                "input_tokens": finished.usage.input_tokens,
                "cached_tokens": finished.usage.cached_tokens,
                "output_tokens": finished.usage.output_tokens,
            });
            named.push((finish.to_owned(), self.hold(Tensor::text(json.to_string()))?));
        }
        Ok(named)
    }
}
