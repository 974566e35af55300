# What is compiled while the package is precompiled.
if ccall(:jl_generating_output, Cint, ()) == 1
    if VERSION >= v"1.9"
        # The native code of all that runs is kept, unless `[MLPGF] precompile_workload = false` in
        # LocalPreferences.toml says otherwise, as for packages with PrecompileTools: for those who change this package
        # often.
        let uuid = Base.PkgId(@__MODULE__).uuid
            Base.record_compiletime_preference(uuid, "precompile_workload")
            get(Base.get_preferences(uuid), "precompile_workload", true) && workload()
        end
    else
        # Inferred only, of what a first process calls before a solver runs. Solvers and infinite nets are left out: on
        # Julia 1.5 code that was inferred in another process returns boxed numbers, an allocation a step or call.
        let T = Float64, V = Vector{Float64}, N = Net{Float64}, P = Ptr{Cvoid}
            precompile(border_net, (Type{T}, String, Dict{String,Any}, Int, Int, P, Int, P, P))
            precompile(border_loss, (N, P, Ptr{T}))
            precompile(border_gradient, (N, P, P, Ptr{T}))
            precompile(border_hessian, (N, P, P))
            precompile(border_hvp, (N, P, P, P))
            precompile(border_random_params, (N, UInt64, typeof(glorot_normal), P))
            precompile(border_solve, (N, P, String, Dict{String,Any}, Ptr{Float64}, P, P))
            precompile(passing_channels, (N, V))
            precompile(parse_options, (Cstring,))
            precompile(foreign_monitor, (P, Bool))
            precompile(value_and_gradient!, (V, N, V))
            for A in (Identity, Softplus, Tanh, Sigmoid, Relu, Sigmoid2, GFunction)
                for order in 0:2
                    M = Matrix{T}
                    precompile(forward_columns!, (A, Val{order}, M, M, M, M, V, Layer, Int, Columns, Bool))
                end
            end
        end
    end
end
