;; Publishes each message to its own queue again, until it is told that this goes in a circle.
(data (i32.const 1024) "bad-emit-self") (data (i32.const 1040) "told so")
(func $process (result i32)
  (call $copy (i32.const 1024) (i32.const 13) (i32.const 64))
  (if (result i32) (i32.load8_u (i32.const 64))
    (then (call $verdict (i32.const 4) (i32.const 1040) (i32.const 7)))
    (else (call $verdict (i32.const 2) (i32.const 1040) (i32.const 0)))))
