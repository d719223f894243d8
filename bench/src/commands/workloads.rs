//! Arguments about workloads, for every command that plays them.

use bench::workload::Source;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Workloads {
    /// A file of `t_ms,model` lines, or a source like poisson:rate=10,models=20,zipf=1.1 or
    /// mmpp:, sessions:, azure:DIR, llm:FILE (see docs/packing.md); several may be given.
    #[arg(long, value_name = "SOURCE", required = true, num_args = 1..)]
    pub(crate) workload: Vec<Source>,
}
