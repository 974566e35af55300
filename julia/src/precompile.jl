# What Python calls before a solver runs, inferred while the package is precompiled. Solvers and infinite nets are not
# here: on Julia 1.5 code that was inferred in another process returns boxed numbers, an allocation a step or call (0.8 s
# of compilation would be saved).
if ccall(:jl_generating_output, Cint, ()) == 1
    let T = Float64, V = Vector{Float64}, N = Net{Float64}, P = Ptr{Cvoid}
        precompile(border_net, (Type{T}, String, Dict{String,Any}, Int, Int, P, Int, P, P))
        precompile(border_loss, (N, P, Ptr{T}))
        precompile(border_gradient, (N, P, P, Ptr{T}))
        precompile(border_hessian, (N, P, P))
        precompile(border_hvp, (N, P, P, P))
        precompile(border_random_params, (N, UInt64, typeof(glorot_normal), P))
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

"""
What Python does with a small net, through the border. From Julia 1.9 on the native code of what is run while the package is
precompiled is kept: on 1.11 the first flow of a process takes 0.2 instead of 15 s, and the table nothing instead of 7 s.
Returns the statuses of the calls.
"""
function rehearse()
    X, Y = [0.5 -0.5 0.3; 0.1 0.2 -0.4], [0.3 0.1 0.2]
    text(s) = Base.unsafe_convert(Cstring, s)
    out, value, statuses = Ref{Int64}(0), Ref(0.0), Cint[]
    called(status) = push!(statuses, status)
    layers, none, init = "3 1 softplus\n1 1 identity", "", "glorot_normal"
    options = "maxtime_ode=1\nmaxiterations_ode=30\nmaxtime_optim=1\nmaxiterations_optim=30"
    GC.@preserve X Y layers none init options begin
        place = Base.unsafe_convert(Ptr{Int64}, out)
        called(c_net(Int32(0), text(layers), text(none), 2, 3, Ptr{Cvoid}(pointer(X)), 1, Ptr{Cvoid}(pointer(Y)), C_NULL, place))
        handle, net = out[], net_of(out[])
        x = zeros(n_params(net))
        g, H, p = similar(x), zeros(length(x), length(x)), Ptr{Cvoid}(pointer(x))
        called(c_random_params(handle, UInt64(1), text(init), p))
        called(c_loss(handle, p, Base.unsafe_convert(Ptr{Float64}, value)))
        called(c_gradient(handle, p, Ptr{Cvoid}(pointer(g)), Base.unsafe_convert(Ptr{Float64}, value)))
        called(c_hessian(handle, p, Ptr{Cvoid}(pointer(H))))
        called(c_hvp(handle, p, Ptr{Cvoid}(pointer(x)), Ptr{Cvoid}(pointer(g))))
        for what in ("train", "minimize", "flow"), alg in (what == "flow" ? ("Rodas5P", "Exprb53s3", "QNDF") : ("auto",))
            chosen = options * "\nalg=" * alg
            GC.@preserve chosen called(c_solve(handle, p, text(what), text(chosen), Ptr{Float64}(0), C_NULL, C_NULL, place))
        end
        paths = "x\nloss\node.stopped_by.advice\noptim.iterations\node.trajectory.x"
        info = zeros(Int64, 30)
        GC.@preserve paths info called(c_fields(out[], text(paths), pointer(info)))
        c_table()
    end
    # Nothing of this may be found again by the process that loads the package.
    foreach(empty!, (HANDLES, C_TABLE, WARM, PATHS))
    LAST_HANDLE[] = 0
    SCRATCH[] = nothing
    return statuses
end
VERSION >= v"1.9" && ccall(:jl_generating_output, Cint, ()) == 1 && rehearse()
