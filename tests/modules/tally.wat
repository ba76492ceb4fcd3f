;; Tally: a rules module by hand. The same game as tally.c, which says what it does; it shows every part of the boundary in full.
(module
  (import "holeshot" "log" (func $log (param $level i32) (param $address i32) (param $len i32)))

  ;; Layout of the memory, in bytes:
  ;;      0  nothing: an address of 0 means "none"
  ;;     16  texts
  ;;   4096  tallies, one u32 per player
  ;;   4160  the state of the last save
  ;;   8192  the output record
  ;;  16384  the buffer, to the end of the memory
  (memory (export "memory") 5)
  (data (i32.const 16)
    "{\"name\":\"tally\",\"version\":\"1.0.0\",\"state_version\":1,\"players_min\":1,\"players_max\":8,\"input_bytes_max\":1,\"frames_max\":1000}")
  (data (i32.const 256) "tally takes no options")
  (data (i32.const 288) "tally takes 1 to 8 players")
  (data (i32.const 320) "tally knows state version 1 only")
  (data (i32.const 360) "the state is of another number of players")
  (data (i32.const 408) "joined")
  (data (i32.const 416) "left")
  (data (i32.const 424) "{\"player\":")
  (data (i32.const 440) ",\"outcome\":\"counted\",\"data\":")
  (data (i32.const 472) "a tally begins")

  (global $players (mut i32) (i32.const 0))
  (global $frames (mut i32) (i32.const 0))
  ;; Where the output record ends so far.
  (global $end (mut i32) (i32.const 0))
  (global $items (mut i32) (i32.const 0))

  (func $span (param $address i32) (param $len i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $address)) (i64.const 32)) (i64.extend_i32_u (local.get $len))))

  (func (export "holeshot_abi_version") (result i32) (i32.const 0x00010000))

  (func (export "holeshot_manifest") (result i64) (call $span (i32.const 16) (i32.const 122)))

  (func (export "holeshot_buffer") (param $len i32) (result i32)
    (select (i32.const 16384) (i32.const 0) (i32.le_u (local.get $len) (i32.const 307200))))

  (func (export "holeshot_init") (param $len i32) (result i64)
    (call $log (i32.const 4) (i32.const 472) (i32.const 14))
    (global.set $players (i32.load16_u (i32.const 16396)))
    (if (i32.load (i32.const 16400)) (then (return (call $span (i32.const 256) (i32.const 22)))))
    (if (i32.gt_u (global.get $players) (i32.const 8)) (then (return (call $span (i32.const 288) (i32.const 26)))))
    (i64.const 0))

  ;; Appends a byte, a u32, a text, a number in decimal; zeros up to a multiple of 4.
  (func $byte (param $value i32)
    (i32.store8 (global.get $end) (local.get $value))
    (global.set $end (i32.add (global.get $end) (i32.const 1))))
  (func $u32 (param $value i32)
    (i32.store (global.get $end) (local.get $value))
    (global.set $end (i32.add (global.get $end) (i32.const 4))))
  (func $text (param $address i32) (param $len i32)
    (memory.copy (global.get $end) (local.get $address) (local.get $len))
    (global.set $end (i32.add (global.get $end) (local.get $len))))
  (func $decimal (param $value i32)
    (if (i32.ge_u (local.get $value) (i32.const 10))
      (then (call $decimal (i32.div_u (local.get $value) (i32.const 10)))))
    (call $byte (i32.add (i32.const 48) (i32.rem_u (local.get $value) (i32.const 10)))))
  (func $pad
    (loop $more
      (if (i32.and (global.get $end) (i32.const 3))
        (then (call $byte (i32.const 0)) (br $more)))))

  ;; Begins an item and returns where its data begins; $item_end fills in how long the data became.
  (func $item (param $kind i32) (param $name i32) (param $name_len i32) (result i32)
    (global.set $items (i32.add (global.get $items) (i32.const 1)))
    (call $byte (local.get $kind))
    (call $byte (local.get $name_len))
    (call $pad)
    (call $u32 (i32.const 0))
    (call $text (local.get $name) (local.get $name_len))
    (call $pad)
    (global.get $end))
  (func $item_end (param $length_at i32) (param $data i32)
    (i32.store (local.get $length_at) (i32.sub (global.get $end) (local.get $data)))
    (call $pad))

  (func (export "holeshot_tick") (param $len i32) (result i64)
    (local $at i32) (local $player i32) (local $left i32) (local $stride i32) (local $start i32) (local $data i32)
    (global.set $frames (i32.add (i32.load (i32.const 16384)) (i32.const 1)))
    (local.set $stride (i32.load16_u (i32.const 16394)))
    (local.set $at (i32.const 16400))
    (global.set $end (i32.const 8200))
    (global.set $items (i32.const 0))

    ;; Inputs: the first byte of a fresh one is added.
    (loop $inputs
      (if (i32.lt_u (local.get $player) (global.get $players))
        (then
          (if (i32.and (i32.eq (i32.load8_u (local.get $at)) (i32.const 1)) (i32.ne (i32.load8_u offset=1 (local.get $at)) (i32.const 0)))
            (then (call $add (local.get $player) (i32.load8_u offset=4 (local.get $at)))))
          (local.set $at (i32.add (local.get $at) (i32.add (local.get $stride) (i32.const 4))))
          (local.set $player (i32.add (local.get $player) (i32.const 1)))
          (br $inputs))))

    ;; Changes: a public event each.
    (local.set $left (i32.load16_u (i32.const 16390)))
    (loop $changes
      (if (local.get $left)
        (then
          (local.set $start (global.get $end))
          (local.set $data
            (if (result i32) (i32.eq (i32.load8_u offset=2 (local.get $at)) (i32.const 1))
              (then (call $item (i32.const 3) (i32.const 408) (i32.const 6)))
              (else (call $item (i32.const 3) (i32.const 416) (i32.const 4)))))
          (call $text (i32.const 424) (i32.const 10))
          (call $decimal (i32.load16_u (local.get $at)))
          (call $byte (i32.const 125))
          (call $item_end (i32.add (local.get $start) (i32.const 4)) (local.get $data))
          (local.set $at (i32.add (local.get $at) (i32.const 4)))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br $changes))))

    ;; Actions: 100 each.
    (local.set $left (i32.load16_u (i32.const 16392)))
    (loop $actions
      (if (local.get $left)
        (then
          (call $add (i32.load16_u (local.get $at)) (i32.const 100))
          (local.set $at
            (i32.add
              (i32.add (local.get $at) (i32.const 4))
              (i32.and (i32.add (i32.load16_u offset=2 (local.get $at)) (i32.const 3)) (i32.const -4))))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br $actions))))

    ;; The snapshot: all tallies.
    (local.set $start (global.get $end))
    (local.set $data (call $item (i32.const 1) (i32.const 0) (i32.const 0)))
    (call $text (i32.const 4096) (i32.shl (global.get $players) (i32.const 2)))
    (call $item_end (i32.add (local.get $start) (i32.const 4)) (local.get $data))

    ;; The results after 100 frames.
    (if (i32.eq (global.get $frames) (i32.const 100))
      (then
        (local.set $start (global.get $end))
        (local.set $data (call $item (i32.const 5) (i32.const 0) (i32.const 0)))
        (call $byte (i32.const 91))
        (local.set $player (i32.const 0))
        (loop $results
          (if (local.get $player) (then (call $byte (i32.const 44))))
          (call $text (i32.const 424) (i32.const 10))
          (call $decimal (local.get $player))
          (call $text (i32.const 440) (i32.const 28))
          (call $decimal (i32.load offset=4096 (i32.shl (local.get $player) (i32.const 2))))
          (call $byte (i32.const 125))
          (local.set $player (i32.add (local.get $player) (i32.const 1)))
          (br_if $results (i32.lt_u (local.get $player) (global.get $players))))
        (call $byte (i32.const 93))
        (call $item_end (i32.add (local.get $start) (i32.const 4)) (local.get $data))))

    (i32.store (i32.const 8192) (global.get $items))
    (i32.store (i32.const 8196) (i32.const 0))
    (call $span (i32.const 8192) (i32.sub (global.get $end) (i32.const 8192))))

  (func $add (param $player i32) (param $value i32)
    (local $at i32)
    (local.set $at (i32.shl (local.get $player) (i32.const 2)))
    (i32.store offset=4096 (local.get $at) (i32.add (i32.load offset=4096 (local.get $at)) (local.get $value))))

  ;; The state: the number of frames, then the tallies.
  (func (export "holeshot_save") (result i64)
    (i32.store (i32.const 4160) (global.get $frames))
    (memory.copy (i32.const 4164) (i32.const 4096) (i32.shl (global.get $players) (i32.const 2)))
    (call $span (i32.const 4160) (i32.add (i32.const 4) (i32.shl (global.get $players) (i32.const 2)))))

  (func (export "holeshot_restore") (param $len i32) (result i64)
    (if (i32.ne (i32.load (i32.const 16384)) (i32.const 1)) (then (return (call $span (i32.const 320) (i32.const 32)))))
    (if (i32.ne (local.get $len) (i32.add (i32.const 12) (i32.shl (global.get $players) (i32.const 2))))
      (then (return (call $span (i32.const 360) (i32.const 41)))))
    (global.set $frames (i32.load (i32.const 16392)))
    (memory.copy (i32.const 4096) (i32.const 16396) (i32.shl (global.get $players) (i32.const 2)))
    (i64.const 0)))
