;; Calls the router without end while it is configured.
(func $configure (result i32) (loop $more (drop (call $seed)) (br $more)) (unreachable))
