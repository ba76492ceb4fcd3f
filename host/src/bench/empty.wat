;; A rules module that does nothing: what a call costs before there is any game.
(module
  (memory (export "memory") 1)
  (data (i32.const 16) "{\"name\":\"empty\",\"version\":\"1\",\"state_version\":1,\"players_min\":1,\"players_max\":64,\"input_bytes_max\":16}")
  (func (export "holeshot_abi_version") (result i32) (i32.const 0x10000))
  (func (export "holeshot_manifest") (result i64) (i64.const 0x1000000066))
  (func (export "holeshot_buffer") (param i32) (result i32) (i32.const 4096))
  (func (export "holeshot_init") (param i32) (result i64) (i64.const 0))
  (func (export "holeshot_tick") (param i32) (result i64) (i64.const 0))
  (func (export "holeshot_save") (result i64) (i64.const 0))
  (func (export "holeshot_restore") (param i32) (result i64) (i64.const 0)))
