//! The command `holeshot`, under the name by which the end-to-end tests start it.

fn main() -> std::process::ExitCode {
    holeshot::run()
}
