//! Publishing guest modules.

use llambo_proto::v1::{self, modules_client::ModulesClient};

use crate::{Client, Error, credentials::Transport};

/// A guest module to be published.
///
/// ```no_run
/// # async fn example(client: llambo_client::Client, wasm: Vec<u8>) -> Result<(), llambo_client::Error> {
/// use llambo_client::{Ask, NewModule};
/// client.load_module(NewModule::new("summarizer", wasm).count(8)).await?;
/// let answer = client.infer(Ask::text("A long story").model("summarizer")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct NewModule {
    request: v1::LoadModuleRequest,
}

impl NewModule {
    /// A component, or a core module that is a command, to be asked for as `name`.
    pub fn new(name: &str, wasm: Vec<u8>) -> Self {
        Self { request: v1::LoadModuleRequest { name: name.to_owned(), wasm, ..v1::LoadModuleRequest::default() } }
    }

    /// The node type whose limits it takes; without it, the first one that may be taken.
    pub fn node_type(mut self, name: &str) -> Self {
        name.clone_into(&mut self.request.r#type);
        self
    }

    /// Isolates of it; without it, as many as the version before has, or as the host's configuration says.
    pub fn count(mut self, count: u32) -> Self {
        self.request.count = count;
        self
    }

    /// What it is asked on trial, before others may ask it.
    pub fn trial_prompt(mut self, prompt: &str) -> Self {
        prompt.clone_into(&mut self.request.trial_prompt);
        self
    }

    /// Publishes it without a trial.
    pub fn without_trial(mut self) -> Self {
        self.request.skip_trial = true;
        self
    }
}

impl Client {
    /// Has a module checked, tried and put into service, in the place of the one that had the name.
    pub async fn load_module(&self, module: NewModule) -> Result<v1::LoadModuleResponse, Error> {
        self.done(self.published().load_module(module.request).await)
    }

    /// What is published: each version by itself, by name, the newest first.
    pub async fn modules(&self) -> Result<Vec<v1::Module>, Error> {
        Ok(self.done(self.published().list_modules(v1::ListModulesRequest {}).await)?.modules)
    }

    /// Takes a module out of service with all its versions. Requests that are under way finish.
    pub async fn unload_module(&self, name: &str) -> Result<v1::UnloadModuleResponse, Error> {
        self.done(self.published().unload_module(v1::UnloadModuleRequest { name: name.to_owned() }).await)
    }

    /// Puts an earlier version back into service: the one before the present one, or `version`.
    pub async fn roll_back_module(&self, name: &str, version: Option<u32>) -> Result<v1::RollBackModuleResponse, Error> {
        let request = v1::RollBackModuleRequest { name: name.to_owned(), version: version.unwrap_or(0) };
        self.done(self.published().roll_back_module(request).await)
    }

    fn published(&self) -> ModulesClient<Transport> {
        ModulesClient::new(self.channel())
    }
}
