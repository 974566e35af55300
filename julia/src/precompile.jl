# What Python calls, inferred while the package is precompiled: of 5 s of CPU time from `import` to the end of the
# first flow and minimisation on Julia 1.5, it saves more than 1 s (a workload that runs there would cost 1 s instead). Later Julias keep the machine code as well.
if ccall(:jl_generating_output, Cint, ()) == 1
    let T = Float64, V = Vector{Float64}, N = Net{Float64}, P = Ptr{Cvoid}
        precompile(border_net, (Type{T}, String, Int, Int, P, Int, P, P))
        precompile(border_loss, (N, P, Ptr{T}))
        precompile(border_gradient, (N, P, P, Ptr{T}))
        precompile(border_hessian, (N, P, P))
        precompile(border_hvp, (N, P, P, P))
        precompile(border_random_params, (N, UInt64, typeof(glorot_normal), P))
        precompile(border_solve, (N, P, String, Dict{String,Any}, Ptr{T}, Monitor))
        precompile(parse_options, (Cstring,))
        precompile(foreign_monitor, (P,))
        precompile(value_and_gradient!, (V, N, V))
        precompile(value_and_gradient_into!, (Base.RefValue{T}, V, N, V))
        precompile(integrate, (FlowProblem{T}, FlowState{T}, V, Auto, FlowLimits, Monitor))
        precompile(integrate, (FlowProblem{T}, FlowState{T}, V, Tsit5, FlowLimits, Monitor))
        precompile(integrate, (FlowProblem{T}, FlowState{T}, V, Rodas5P, FlowLimits, Monitor))
        for C in (Tsit5Cache{T}, Rodas5PCache{T})
            precompile(attempt!, (C, FlowProblem{T}, FlowState{T}))
        end
        for (method, state) in ((NewtonTrustRegion, TrustRegionState{T}), (BFGS, BFGSState{T}))
            precompile(run_minimizer, (Objective{T,N}, V, method, Limits{T}, Monitor))
            precompile(iterate!, (state, Objective{T,N}, method))
        end
        for A in (Identity, Softplus, Tanh, Sigmoid, Relu, Sigmoid2, GFunction)
            precompile(activate!, (A, Matrix{T}, Int, Int))
            precompile(activate!, (A, Matrix{T}, Matrix{T}, Int, Int))
            precompile(activate!, (A, Matrix{T}, Matrix{T}, Matrix{T}, Int, Int))
        end
    end
end
