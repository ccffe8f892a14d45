//! `POST /v1/embeddings`: texts as points.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use llambo_inference::{Embedding, ModelName};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use utoipa::ToSchema;

use super::request::Received;
use crate::{
    door::Door,
    http::failure::{ApiError, ErrorBody},
};

/// Texts of one request; OpenAI's limit.
const MAX_TEXTS: usize = 2048;

/// A request for embeddings.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct EmbeddingBody {
    input: Input,
    /// The model that reads them; left out: the host's default.
    model: Option<String>,
    /// `float`, a list of numbers, or `base64`, of 32-bit floats, the lowest byte first.
    #[serde(default)]
    encoding_format: Option<EncodingFormat>,
    /// How many numbers an embedding has; only as many as the model's own have.
    dimensions: Option<u32>,
}

/// One text or several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum Input {
    Text(String),
    Texts(Vec<String>),
    /// Tokens; refused.
    #[schema(value_type = Vec<Object>)]
    Others(Vec<IgnoredAny>),
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    #[default]
    Float,
    Base64,
}

/// Texts as points, each of length 1.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Embeddings {
    /// Always `list`.
    object: &'static str,
    /// In the order of the texts.
    data: Vec<EmbeddingObject>,
    model: String,
    usage: EmbeddingUsage,
}

#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingObject {
    /// Always `embedding`.
    object: &'static str,
    index: usize,
    embedding: Numbers,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Numbers {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Embeds texts.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "OpenAI",
    request_body = EmbeddingBody,
    responses(
        (status = 200, description = "An embedding of each text", body = Embeddings),
        (status = "4XX", description = "The request cannot be served as it stands", body = ErrorBody),
        (status = "5XX", description = "It cannot be served now, or failed", body = ErrorBody),
    )
)]
pub(super) async fn embed(State(door): State<Arc<Door>>, request: Request) -> Result<Json<Embeddings>, ApiError> {
    let received = Received::read(&door, request).await?;
    let body: EmbeddingBody = received.fields()?;
    let model = body.model.as_ref().filter(|name| !name.is_empty()).map(ModelName::from);
    let engine = door.embedder(&received.caller, model.as_ref())?;
    let n_embd = engine.info().n_embd;
    if body.dimensions.is_some_and(|n| n != n_embd) {
        let what = format!("`dimensions` cannot be chosen: embeddings of this model have {n_embd}; leave it out");
        return Err(ApiError::invalid(what).param("dimensions"));
    }
    let texts = body.input.texts()?;
    let (embedded, n_tokens) = door.embed(&received.caller, &engine, texts, received.deadline(false)).await?;
    let n_tokens = u64::from(n_tokens);
    let format = body.encoding_format.unwrap_or_default();
    let data = embedded.into_iter().enumerate();
    Ok(Json(Embeddings {
        object: "list",
        data: data.map(|(index, embedding)| EmbeddingObject::new(index, embedding, format)).collect(),
        model: engine.info().name.to_string(),
        usage: EmbeddingUsage { prompt_tokens: n_tokens, total_tokens: n_tokens },
    }))
}

impl Input {
    fn texts(self) -> Result<Vec<String>, ApiError> {
        let refuse = |what: String| Err(ApiError::invalid(what).param("input"));
        let texts = match self {
            Self::Text(text) => vec![text],
            Self::Texts(texts) => texts,
            Self::Others(items) => {
                return refuse(format!(
                    "`input` is a list of {} that are no strings; send text: token ids would be those of another model's vocabulary \
                     (LangChain sends text with `check_embedding_ctx_length=False`)",
                    items.len()
                ));
            }
        };
        if !(1..=MAX_TEXTS).contains(&texts.len()) {
            return refuse(format!("`input` is a list of {}, but must have 1 to {MAX_TEXTS} texts", texts.len()));
        }
        match texts.iter().position(String::is_empty) {
            Some(i) => refuse(format!("`input[{i}]` is empty; leave it out or give it text")),
            None => Ok(texts),
        }
    }
}

impl EmbeddingObject {
    fn new(index: usize, Embedding { values, .. }: Embedding, format: EncodingFormat) -> Self {
        let embedding = match format {
            EncodingFormat::Float => Numbers::Float(values),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Numbers::Base64(STANDARD.encode(bytes))
            }
        };
        Self { object: "embedding", index, embedding }
    }
}
