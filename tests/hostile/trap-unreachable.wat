;; Traps on each message, without a word.
(func $process (result i32) (unreachable))
