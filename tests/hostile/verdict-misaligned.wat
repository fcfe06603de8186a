;; Answers with a verdict at an odd place.
(func $process (result i32) (i32.const 129))
