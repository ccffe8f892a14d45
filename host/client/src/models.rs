//! Models of a host: into its memory and out of it.

use llambo_proto::v1::{self, models_client::ModelsClient};

use crate::{Client, Error, credentials::Transport};

/// A model that is to be loaded. What is left empty or 0 is as the host is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadModel {
    /// Of the catalog of the host's machine, or of a model that was unloaded.
    pub name: String,
    /// The node type whose limits, module and tenant its nodes take. This and what follows is for models that are not in service yet.
    pub node_type: String,
    /// Nodes.
    pub count: u32,
    /// Tokens of prompt and answer together.
    pub context: u32,
    /// Sequences decoded together.
    pub sequences: u32,
    /// Whether it stays when room is needed for another one.
    pub pin: bool,
}

impl LoadModel {
    /// A model by its name.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

impl Client {
    /// Brings a model into memory, and into service if it was not.
    pub async fn load_model(&self, wanted: LoadModel) -> Result<v1::LoadModelResponse, Error> {
        let LoadModel { name, node_type, count, context, sequences, pin } = wanted;
        let request = v1::LoadModelRequest { name, r#type: node_type, count, context, sequences, pin };
        self.done(self.shelf().load_model(request).await)
    }

    /// Takes a model out of memory once nobody uses it; `retire`: out of service for good.
    pub async fn unload_model(&self, name: &str, retire: bool) -> Result<v1::UnloadModelResponse, Error> {
        self.done(self.shelf().unload_model(v1::UnloadModelRequest { name: name.to_owned(), retire }).await)
    }

    /// Keeps a model in memory, or no longer.
    pub async fn pin_model(&self, name: &str, pinned: bool) -> Result<(), Error> {
        self.done(self.shelf().pin_model(v1::PinModelRequest { name: name.to_owned(), pinned }).await).map(|_| ())
    }

    fn shelf(&self) -> ModelsClient<Transport> {
        ModelsClient::new(self.channel())
    }
}
