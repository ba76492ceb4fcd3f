#!/bin/sh
# cargo's RUSTC_WRAPPER: compiles the host, its formats and the parsers under them with coverage counters for libFuzzer, and everything else as it is.
# Counters in the compiler for rules, the broker and the web server would say nothing of a decoder, and libFuzzer looks at all of them after every
# input. The flags are those of cargo-fuzz with `--sanitizer none`; stable Rust has them.
# Build scripts are linked without libFuzzer: what is built for them has no `--target`.
case " $* " in
    *wasm32*) ;;
    *" --crate-name build_script_"*) ;;
    *" --crate-name holeshot"*" --target "* | *" --crate-name serde_json "*" --target "* | *" --crate-name toml"*" --target "* | \
    *" --crate-name winnow "*" --target "* | *" --crate-name wasmparser "*" --target "* | *" --crate-name jsonwebtoken "*" --target "* | \
    *" --crate-name humantime "*" --target "* | *" --crate-name base64 "*" --target "*)
        exec "$@" -Cpasses=sancov-module \
            -Cllvm-args=-sanitizer-coverage-level=4 \
            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
            -Cllvm-args=-sanitizer-coverage-pc-table \
            -Cllvm-args=-sanitizer-coverage-trace-compares \
            -Cllvm-args=-simplifycfg-branch-fold-threshold=0
        ;;
esac
exec "$@"
