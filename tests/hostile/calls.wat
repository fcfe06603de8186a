;; Calls the router without end.
(func $process (result i32) (loop $more (drop (call $seed)) (br $more)) (unreachable))
