//! corptokend: arguments, logging, runtime, exit code.

fn main() {}
