//! The least that publishing files can cost: open, write, fsync, rename, in a loop and nothing else.
//!
//! `plain_loop DIRECTORY COUNT BYTES`; `benches/compare/run` compiles it with `rustc -O`.

use std::fs::{OpenOptions, rename};
use std::io::{self, Write};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, directory, count, bytes] = arguments.as_slice() else {
        return Err(io::Error::other("usage: plain_loop DIRECTORY COUNT BYTES"));
    };
    let number = |text: &str| text.parse::<usize>().map_err(io::Error::other);
    let token = vec![b'x'; number(bytes)?];
    for file in 0..number(count)? {
        let (temporary, path) = (format!("{directory}/.{file}.tmp"), format!("{directory}/{file}"));
        let mut open = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        open.write_all(&token)?;
        open.sync_all()?;
        drop(open);
        rename(temporary, path)?;
    }
    Ok(())
}
