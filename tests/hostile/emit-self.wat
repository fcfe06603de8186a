;; Publishes each message to its own queue again, and drops it.
(data (i32.const 1024) "bad-emit-self")
(func $process (result i32)
  (call $copy (i32.const 1024) (i32.const 13) (i32.const 64))
  (call $verdict (i32.const 2) (i32.const 1024) (i32.const 0)))
