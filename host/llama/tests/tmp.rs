#[path = "../../../tests/tests/llama/main.rs"]
mod suite;
