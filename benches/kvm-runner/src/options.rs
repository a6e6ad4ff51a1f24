// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the runner is told.

use anyhow::{Context, Result, bail, ensure};

use crate::load::Load;

/// Options, each of the form `name=value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Guest memory in MiB.
    pub memory_mib: usize,
    /// Virtual CPUs, each a thread.
    pub cpus: u64,
    /// Whether KVM uses the CPU's nested paging; shadow page tables otherwise.
    pub nested_paging: bool,
    /// Words of the guest's command line.
    pub append: Vec<String>,
    /// What the host has to do beside.
    pub loads: Vec<Load>,
    /// Whether each vCPU has a CPU for itself, and what the host has to do the others.
    pub apart: bool,
}

impl Options {
    /// Reads the arguments.
    ///
    /// # Errors
    /// One line that names the argument at fault.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            memory_mib: 64,
            cpus: 1,
            nested_paging: true,
            append: Vec::new(),
            loads: Vec::new(),
            apart: false,
        };
        for argument in arguments {
            let (name, value) =
                argument.split_once('=').with_context(|| format!("'{argument}' has no value"))?;
            let number =
                || value.parse().with_context(|| format!("{name}: '{value}' is no number"));
            match name {
                "memory" => options.memory_mib = usize::try_from(number()?)?,
                "cpus" => options.cpus = number()?,
                "npt" => options.nested_paging = number()? != 0,
                "apart" => options.apart = number()? != 0,
                "load" => options.loads.push(Load::parse(value)?),
                "append" => options.append.push(value.to_owned()),
                _ => bail!("'{name}' is no option of the runner"),
            }
        }
        // The guest's tables map 4 GiB, of which the last is for devices.
        ensure!((16..=3072).contains(&options.memory_mib), "memory is 16 to 3072 MiB");
        ensure!((1..=64).contains(&options.cpus), "there are 1 to 64 CPUs");
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_checked() {
        let options =
            parse("memory=128 cpus=2 npt=0 append=a append=b load=memory apart=1").unwrap();
        assert_eq!((options.memory_mib, options.cpus, options.nested_paging), (128, 2, false));
        assert_eq!(options.append, ["a", "b"]);
        assert_eq!((options.loads, options.apart), (vec![Load::Memory], true));
        assert!(parse("").unwrap().nested_paging);
        for (line, complaint) in
            [("memory=1", "16 to 3072"), ("cpus=0", "1 to 64"), ("x=1", "'x'"), ("npt", "no value")]
        {
            assert!(parse(line).unwrap_err().to_string().contains(complaint), "{line}");
        }
    }
}
