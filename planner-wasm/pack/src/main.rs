//! Writes the JavaScript and the TypeScript declarations beside the planner's WebAssembly.
//!
//! It is what the command `wasm-bindgen` does, of the very version that the lock file has of the crate: the two must be
//! the same, and a command that is installed for itself drifts.

use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else {
        eprintln!("usage: planner-pack MODULE.wasm FOLDER");
        return ExitCode::from(2);
    };
    let mut bindgen = Bindgen::new();
    let packed = bindgen
        .input_path(input)
        .out_name("planner")
        .typescript(true)
        .omit_default_module_path(true)
        .web(true)
        .and_then(|bindgen| bindgen.generate(output));
    match packed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("`{input}` cannot be packed into `{output}`: {error:#}");
            ExitCode::FAILURE
        }
    }
}
