//! Conversations into prompts, by the Jinja template that the model's file carries.

use llambo_inference::Message;
use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig};

use crate::error::LlamaError;

/// The template of one model, compiled.
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

/// Name under which the only template is kept.
const NAME: &str = "chat";

/// For models that carry none: a plain transcript.
const PLAIN: &str = "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}\n{% endfor %}Assistant:";

impl ChatTemplate {
    /// Compiles `source`, or a plain transcript form where there is none. `bos` and `eos` are the model's control tokens as text.
    pub(crate) fn new(source: Option<&str>, bos: String, eos: String) -> Result<Self, LlamaError> {
        let mut environment = Environment::new();
        // what Hugging Face's own renderer sets, which templates are written for
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| LlamaError::Settings(e.to_string()))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        // a template loops over messages and characters of them; beyond this it does not end
        environment.set_fuel(Some(50_000_000));
        environment
            .add_template_owned(NAME, source.unwrap_or(PLAIN).to_owned())
            .map_err(|e| LlamaError::Settings(format!("the model's chat template cannot be compiled: {e}")))?;
        Ok(Self { environment, bos, eos })
    }

    /// The prompt for `messages`, ready for the model to answer. Without the begin-of-text token, which tokenizing adds.
    ///
    /// # Errors
    /// What the template says against the conversation, for example two user messages in a row.
    pub(crate) fn render(&self, messages: &[Message]) -> Result<String, String> {
        let messages: Vec<Value> =
            messages.iter().map(|m| context! { role => m.role.as_str(), content => m.content.as_str() }).collect();
        let template = self.environment.get_template(NAME).map_err(|e| e.to_string())?;
        let text = template
            .render(context! { messages, add_generation_prompt => true, bos_token => &self.bos, eos_token => &self.eos })
            .map_err(|e| {
                format!("the model's chat template refuses these messages: {}", e.detail().unwrap_or("unknown reason"))
            })?;
        Ok(match text.strip_prefix(self.bos.as_str()) {
            Some(rest) if !self.bos.is_empty() => rest.to_owned(),
            _ => text,
        })
    }
}

#[cfg(test)]
mod tests {
    use llambo_inference::Role;

    use super::*;

    fn message(role: Role, content: &str) -> Message {
        Message { role, content: content.into() }
    }

    #[test]
    fn a_templates_own_begin_of_text_is_not_doubled() {
        let source = "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'].strip() }}{% endfor %}";
        let template = ChatTemplate::new(Some(source), "<s>".into(), "</s>".into()).unwrap();
        assert_eq!(template.render(&[message(Role::User, " hi ")]).unwrap(), "<|user|>hi");
    }

    #[test]
    fn a_refusal_of_the_template_reaches_the_client() {
        let template =
            ChatTemplate::new(Some("{{ raise_exception('roles must alternate') }}"), String::new(), String::new()).unwrap();
        assert!(template.render(&[]).unwrap_err().contains("roles must alternate"));
    }

    #[test]
    fn a_model_without_a_template_gets_a_transcript() {
        let template = ChatTemplate::new(None, "<s>".into(), "</s>".into()).unwrap();
        let text = template.render(&[message(Role::System, "Be brief."), message(Role::User, "Hi")]).unwrap();
        assert_eq!(text, "System: Be brief.\nUser: Hi\nAssistant:");
    }
}
