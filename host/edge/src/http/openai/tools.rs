//! Tools, for models that know nothing of them but text: what they are told, and what form a call must have.

use std::collections::BTreeSet;

use llambo_inference::Constraint;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::watch::{CLOSE, Forced, OPEN, Watch};
use crate::http::failure::ApiError;

/// Tools of one request; OpenAI's limit.
const MAX_TOOLS: usize = 128;
/// Characters of a tool's name; OpenAI's limit.
const MAX_NAME: usize = 64;

/// Something that the model may call.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct Tool {
    /// Always `function`.
    #[serde(rename = "type")]
    kind: String,
    function: Option<Function>,
}

#[derive(Clone, Debug, Deserialize, ToSchema)]
struct Function {
    /// Letters, digits, `_` and `-`.
    #[schema(max_length = 64, pattern = "^[a-zA-Z0-9_-]+$")]
    name: String,
    /// What it does, for the model.
    description: Option<String>,
    /// A JSON Schema of the arguments, which are an object.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
}

/// Whether a tool must be called.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected `none`, `auto`, `required`, or an object that names a function")]
pub(super) enum ToolChoice {
    Mode(Mode),
    Named(Named),
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// No tool is called.
    None,
    /// The model decides.
    Auto,
    /// One tool is called.
    Required,
}

#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(super) struct Named {
    function: NamedFunction,
}

#[derive(Clone, Debug, Deserialize, ToSchema)]
struct NamedFunction {
    name: String,
}

/// What tools do to a request.
#[derive(Debug)]
pub(super) struct Tooling {
    /// Told to the model before everything else.
    pub(super) instructions: Option<String>,
    /// The form that the text must have.
    pub(super) constraint: Option<Constraint>,
    /// What the text is watched for.
    pub(super) watch: Watch,
    /// Ends the text.
    pub(super) stop: Option<&'static str>,
}

/// What a request says about tools.
pub(super) struct Wanted<'a> {
    pub(super) tools: &'a [Tool],
    pub(super) choice: Option<&'a ToolChoice>,
    pub(super) parallel: bool,
}

impl Wanted<'_> {
    /// What follows from it.
    ///
    /// # Errors
    /// A tool that is none, or a choice of one that is not there.
    pub(super) fn tooling(&self) -> Result<Tooling, ApiError> {
        let functions = functions(self.tools)?;
        let none = Tooling { instructions: None, constraint: None, watch: Watch::Plain, stop: None };
        if functions.is_empty() {
            return match self.choice {
                None | Some(ToolChoice::Mode(Mode::None | Mode::Auto)) => Ok(none),
                Some(_) => Err(ApiError::invalid("`tool_choice` asks for a tool, but there are no `tools`").param("tool_choice")),
            };
        }
        let instructions = Some(instructions(&functions));
        match self.choice {
            Some(ToolChoice::Mode(Mode::None)) => Ok(none),
            None | Some(ToolChoice::Mode(Mode::Auto)) => {
                let names: BTreeSet<String> = functions.iter().map(|function| function.name.clone()).collect();
                let stop = (!self.parallel).then_some(CLOSE);
                Ok(Tooling { instructions, watch: Watch::tagged(names), stop, ..none })
            }
            Some(ToolChoice::Mode(Mode::Required)) => Ok(Tooling {
                instructions,
                constraint: Some(call_of(&functions)),
                watch: Watch::Forced(Forced::default()),
                ..none
            }),
            Some(ToolChoice::Named(named)) => {
                let named = &named.function.name;
                let one: Vec<&Function> = functions.iter().filter(|function| function.name == *named).copied().collect();
                if one.is_empty() {
                    let what = format!("`tool_choice` names the function {named:?}, which is not among `tools`");
                    return Err(ApiError::invalid(what).param("tool_choice.function.name"));
                }
                Ok(Tooling { instructions, constraint: Some(call_of(&one)), watch: Watch::Forced(Forced::default()), ..none })
            }
        }
    }
}

fn functions(tools: &[Tool]) -> Result<Vec<&Function>, ApiError> {
    if tools.len() > MAX_TOOLS {
        return Err(
            ApiError::invalid(format!("`tools` has {} entries; at most {MAX_TOOLS} are permitted", tools.len())).param("tools")
        );
    }
    let mut names = BTreeSet::new();
    let functions = tools.iter().enumerate().map(|(i, tool)| {
        let refuse = |field: &str, what: String| {
            let param = format!("tools[{i}]{field}");
            Err(ApiError::invalid(format!("`{param}` {what}")).param(param))
        };
        let Some(function) = tool.function.as_ref().filter(|_| tool.kind == "function") else {
            return refuse("", "is not a tool of the type `function`; no others can be served here".into());
        };
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !(1..=MAX_NAME).contains(&function.name.len()) || !function.name.bytes().all(is_name) {
            return refuse(".function.name", format!("must be 1 to {MAX_NAME} letters, digits, `_` and `-`"));
        }
        if !names.insert(function.name.as_str()) {
            return refuse(".function.name", format!("is `{}`, which another tool is called already", function.name));
        }
        match &function.parameters {
            None => Ok(function),
            Some(Value::Object(schema)) if schema.get("type").is_none_or(|kind| kind == "object") => Ok(function),
            Some(_) => refuse(".function.parameters", "must be the JSON Schema of an object".into()),
        }
    });
    functions.collect()
}

/// In the words that models of the Hermes and Qwen families were trained with, and that others understand.
fn instructions(functions: &[&Function]) -> String {
    let mut text = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
                    You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        .to_owned();
    for function in functions {
        let mut told = Map::new();
        told.insert("name".into(), function.name.clone().into());
        if let Some(description) = &function.description {
            told.insert("description".into(), description.clone().into());
        }
        told.insert("parameters".into(), parameters(function));
        text.push_str(&json!({ "type": "function", "function": told }).to_string());
        text.push('\n');
    }
    text.push_str(
        "</tools>\n\nFor each function call, return a json object with function name and arguments within \
         <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>",
    );
    text
}

/// Without a schema there are no arguments.
fn parameters(function: &Function) -> Value {
    let nothing = || json!({ "type": "object", "properties": {}, "additionalProperties": false });
    let mut schema = function.parameters.clone().unwrap_or_else(nothing);
    if let Some(members) = schema.as_object_mut() {
        members.entry("type").or_insert_with(|| "object".into());
    }
    schema
}

/// One call of one of them, and nothing else, in one form only.
fn call_of(functions: &[&Function]) -> Constraint {
    let mut definitions = Map::new();
    let mut calls = Vec::new();
    for (i, function) in functions.iter().enumerate() {
        let place = format!("tool{i}");
        let mut schema = parameters(function);
        move_references(&mut schema, &format!("#/$defs/{place}"));
        calls.push(json!({
            "type": "object",
            "properties": { "name": { "const": function.name }, "arguments": { "$ref": format!("#/$defs/{place}") } },
            "required": ["name", "arguments"],
            "additionalProperties": false,
        }));
        definitions.insert(place, schema);
    }
    let schema = json!({
        "anyOf": calls,
        "$defs": definitions,
        "x-guidance": { "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " },
    });
    Constraint::JsonSchema(schema.to_string())
}

/// A schema that is put into another one still refers to its own parts.
fn move_references(schema: &mut Value, place: &str) {
    let mut open = vec![schema];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get_mut("$ref")
                    && let Some(within) = reference.strip_prefix('#')
                {
                    *reference = format!("{place}{within}");
                }
                open.extend(members.values_mut());
            }
            _ => {}
        }
    }
}

/// A call that the model made earlier, as it would have written it.
pub(super) fn written_call(name: &str, arguments: &str) -> String {
    // it was JSON when it left; a client may have changed it
    let arguments: Value = serde_json::from_str(arguments).unwrap_or_else(|_| arguments.into());
    format!("{OPEN}\n{}\n{CLOSE}", json!({ "name": name, "arguments": arguments }))
}

/// What a call gave, as the model reads it.
pub(super) fn written_result(content: &str) -> String {
    format!("<tool_response>\n{content}\n</tool_response>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tooling(tools: Value, choice: Value, parallel: bool) -> Result<Tooling, ApiError> {
        let tools: Vec<Tool> = serde_json::from_value(tools).unwrap();
        let choice: Option<ToolChoice> = serde_json::from_value(choice).unwrap();
        Wanted { tools: &tools, choice: choice.as_ref(), parallel }.tooling()
    }

    fn tool(name: &str, parameters: &Value) -> Value {
        json!({ "type": "function", "function": { "name": name, "description": "d", "parameters": parameters, "strict": true } })
    }

    fn schema(tooling: Tooling) -> Value {
        let Some(Constraint::JsonSchema(schema)) = tooling.constraint else { panic!("{tooling:?}") };
        serde_json::from_str(&schema).unwrap()
    }

    #[test]
    fn a_call_that_must_be_is_a_constraint() {
        let own = json!({ "properties": { "a": { "$ref": "#/$defs/x" } }, "$defs": { "x": { "enum": [1] } } });
        let tools = json!([tool("f", &own), tool("g", &Value::Null)]);
        let all = schema(tooling(tools.clone(), json!("required"), true).unwrap());
        assert_eq!(all["anyOf"].as_array().unwrap().len(), 2);
        assert_eq!(all["$defs"]["tool0"]["properties"]["a"]["$ref"], "#/$defs/tool0/$defs/x");
        assert_eq!(
            (&all["$defs"]["tool0"]["type"], &all["$defs"]["tool1"]["additionalProperties"]),
            (&"object".into(), &false.into())
        );
        let one = schema(tooling(tools, json!({ "type": "function", "function": { "name": "g" } }), true).unwrap());
        assert_eq!(one["anyOf"][0]["properties"]["name"]["const"], "g");
        assert_eq!(one["anyOf"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn without_a_choice_the_model_is_told_and_watched() {
        let tools = json!([tool("f", &json!({ "type": "object" }))]);
        let auto = tooling(tools.clone(), Value::Null, true).unwrap();
        assert!(
            auto.instructions.unwrap().contains("\n{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\"")
        );
        assert!(matches!(auto.watch, Watch::Tagged(_)) && auto.constraint.is_none() && auto.stop.is_none());
        assert_eq!(tooling(tools.clone(), json!("auto"), false).unwrap().stop, Some("</tool_call>"));
        let none = tooling(tools, json!("none"), true).unwrap();
        assert!(none.instructions.is_none() && matches!(none.watch, Watch::Plain));
    }

    #[test]
    fn a_tool_that_is_none_is_refused_with_its_place() {
        let param = |tools: Value, choice: Value| {
            serde_json::to_value(tooling(tools, choice, true).unwrap_err().into_body()).unwrap()["error"]["param"].take()
        };
        assert_eq!(param(json!([{ "type": "web_search" }]), Value::Null), "tools[0]");
        assert_eq!(param(json!([tool("a b", &Value::Null)]), Value::Null), "tools[0].function.name");
        assert_eq!(param(json!([tool("a", &Value::Null), tool("a", &Value::Null)]), Value::Null), "tools[1].function.name");
        assert_eq!(param(json!([tool("a", &json!({ "type": "string" }))]), Value::Null), "tools[0].function.parameters");
        assert_eq!(param(json!([tool("a", &Value::Null)]), json!({ "function": { "name": "b" } })), "tool_choice.function.name");
        assert_eq!(param(json!([]), json!("required")), "tool_choice");
    }

    #[test]
    fn calls_and_results_of_earlier_turns_read_as_the_model_wrote_them() {
        assert_eq!(written_call("f", "{\"a\":1}"), "<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":1}}\n</tool_call>");
        assert_eq!(written_call("f", "oops"), "<tool_call>\n{\"name\":\"f\",\"arguments\":\"oops\"}\n</tool_call>");
    }
}
