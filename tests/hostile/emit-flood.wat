;; Emits copies until it is refused, then forwards.
(data (i32.const 1024) "spill")
(func $process (result i32) (loop $more (call $copy (i32.const 1024) (i32.const 5) (i32.const 64))
    (br_if $more (i32.eqz (i32.load8_u (i32.const 64)))))
  (i32.const 0))
