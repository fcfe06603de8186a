;; Emits messages of 1 MiB until it is refused, then forwards.
(memory $memory 40)
(data (i32.const 1024) "spill")
(func $process (result i32) (loop $more
    (call $publish (i32.const 1024) (i32.const 5) (i32.const 0) (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 0) (i32.const 8192) (i32.const 0x100000) (i32.const 64))
    (br_if $more (i32.eqz (i32.load8_u (i32.const 64)))))
  (i32.const 0))
