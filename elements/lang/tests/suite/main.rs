//! The tests of the language, in one program: each would link the compiler and what it stands on anew.

#[path = "../common/mod.rs"]
mod common;
mod shop;

mod bypass;
mod elements;
mod errors;
mod examples;
mod explain;
mod folding;
mod forms;
mod golden;
mod language;
mod limits;
mod made;
mod maglev;
mod maps;
mod more_elements;
mod payload;
mod payload_oracle;
mod program;
mod robust;
mod state;
