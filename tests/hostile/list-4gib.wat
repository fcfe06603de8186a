;; Emits a message with 2^28 headers, whose bytes would overflow.
(func $process (result i32) (call $publish (i32.const 1024) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)
    (i32.const 0) (i32.const 0x10000000) (i32.const 0) (i32.const 0) (i32.const 64))
  (i32.const 0))
