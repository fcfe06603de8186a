;; Rejects for a reason that forges lines of a log, and headers.
(data (i32.const 1024) "no\0d\0aquipu-dead-fault: forged\1b[31m")
(func $process (result i32) (call $verdict (i32.const 4) (i32.const 1024) (i32.const 33)))
