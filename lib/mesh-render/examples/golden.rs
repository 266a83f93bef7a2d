//! Writes the golden files: `cargo run -p mesh-render --example golden`. Read the difference before it is
//! committed; it is what clusters will see.

use std::{error::Error, fs, path::Path};

#[path = "../tests/render/cases.rs"]
mod cases;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for case in cases::all()? {
        let path = folder.join(case.name).with_extension("yaml");
        fs::write(path, case.rendered.to_yaml())?;
    }
    Ok(())
}
