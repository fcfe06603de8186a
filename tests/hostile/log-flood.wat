;; Logs without end.
(data (i32.const 1024) "all work and no play")
(func $process (result i32) (loop $more (call $log (i32.const 4) (i32.const 1024) (i32.const 20)) (br $more)) (unreachable))
