;; Publishes each message to its own queue, as often as it is let.
(data (i32.const 1024) "bad-emit-self-flood")
(func $process (result i32)
  (loop $more
    (call $copy (i32.const 1024) (i32.const 19) (i32.const 64))
    (br_if $more (i32.eqz (i32.load8_u (i32.const 64)))))
  (i32.const 0))
