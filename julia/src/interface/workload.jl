# What users of this package do, on a small scale. It is run where compiled code is kept: while the package is
# precompiled (Julia 1.9 and newer), and when a system image is built for Julia 1.5 (julia/image.jl). Whoever adds a
# function that Python or Julia users call adds it here; `pymlpgf bench --startup` shows what was forgotten.

"""
    workload() -> vector of "what: message"

Run everything once, through the border as Python does and by the functions that Julia users call. The answer names what
failed; it is empty where all is well. Nothing of it is found again by the process that loads the compiled code.
"""
function workload()
    failures = String[]
    attempt(f, what) =
        try
            f()
        catch err
            push!(failures, "$what: $(sprint(showerror, err))")
        end
    for T in (Float64, Float32)
        for (what, f) in ("derivatives" => derivatives_workload, "losses" => losses_workload, "flows" => flows_workload,
                          "discrete methods" => discrete_workload, "minimizers" => minimizers_workload,
                          "large nets" => large_workload, "landscape" => landscape_workload,
                          "infinite data" => infinite_workload, "constraints" => constraints_workload,
                          "proofs" => proof_workload)
            attempt(() -> Base.invokelatest(f, T), "$what in $T")
        end
    end
    attempt(() -> Base.invokelatest(julia_workload), "calls from Julia")
    attempt(() -> Base.invokelatest(refusals_workload), "refusals")
    forget_everything()
    return failures
end

"Nothing that the workload made may be found again: handles, pointers, compiled expressions, what counts as warm."
function forget_everything()
    foreach(empty!, (HANDLES, C_TABLE, WARM, PATHS, EXPRESSIONS, OPTIONS, RULES))
    LAST_HANDLE[] = 0
    LAST_ERROR[] = ""
    LAST_TRACE[] = nothing
    SCRATCH[] = nothing
    return nothing
end

# ---- the border as a process outside of Julia sees it ----------------------------------------------------------------

"Call a function of the border: texts become C strings, arrays and pointers addresses of the kind that it takes."
function outside(f, arguments...)
    kinds = Base.unwrap_unionall(first(methods(f)).sig).parameters[2:end]
    address(kind, a) = a isa String ? Base.unsafe_convert(kind, Base.cconvert(kind, a)) :
                       a isa Array ? kind(pointer(a)) : a isa Ptr ? kind(a) : a
    raw = map(address, kinds, collect(Any, arguments))
    status = GC.@preserve arguments Base.invokelatest(f, raw...)
    status == OK || error(LAST_ERROR[])
    return nothing
end

"The handle that a function of the border writes to its last argument."
function outside_handle(f, arguments...)
    out = Ref{Int64}(0)
    GC.@preserve out outside(f, arguments..., Base.unsafe_convert(Ptr{Int64}, out))
    return out[]
end

"Options as the border reads them; later ones replace earlier ones."
wire(options...) = to_json([string(name) => value for (name, value) in pairs(merge(options...))])

outside_net(::Type{T}, layers, options, X, Y; weights=C_NULL) where {T} =
    outside_handle(c_net, Int32(T == Float32), wire((layers=layers,), options), size(X, 1), size(X, 2), X,
                   Y isa Vector ? -1 : size(Y, 1), Y, weights)
outside_net(::Type{T}, layers, D::Int) where {T} =
    outside_handle(c_net, Int32(T == Float32), wire((layers=layers,)), D, 0, C_NULL, 0, C_NULL, C_NULL)

"Initial parameters of the net of this handle."
function outside_start(net::Int64, seed=1)
    x = zeros(number_type(net_of(net)), n_params(net_of(net)))
    outside(c_random_params, net, UInt64(seed), "glorot_normal", x)
    return x
end
number_type(::AbstractNet{T}) where {T} = T

# Stand-ins for the functions of a user's process: nothing is to be stopped; an event that happens at t = 1/2.
outside_report(phase::Int32, iteration::Int64, t::Float64, loss::Float64, gnorm::Float64, x::Ptr{Cvoid}) = Int32(0)
outside_answer(what::Int64, k::Int64, t::Float64, x::Ptr{Cvoid}) = what == ASK_EVENT ? t - 0.5 : 1.0

"The handle to what a solver answers."
function outside_solve(net::Int64, x, what, options; tauinv=C_NULL)
    report = @cfunction(outside_report, Int32, (Int32, Int64, Float64, Float64, Float64, Ptr{Cvoid}))
    answer = @cfunction(outside_answer, Float64, (Int64, Int64, Float64, Ptr{Cvoid}))
    limits = (maxtime_ode=5, maxiterations_ode=12, maxtime_optim=5, maxiterations_optim=8)
    handle = outside_handle(c_solve, net, x, what, wire(limits, options), tauinv, report, answer)
    what == "minimize" ||
        outside_read(handle, "ode.trajectory.t", "ode.trajectory.x", "ode.trajectory.loss", "ode.trajectory.gnorm",
                     "ode.trajectory.within", "ode.trajectory.observables", "ode.sol.t", "ode.sol.coefficients",
                     "ode.stopped_by.advice", "ode.alg", "ode.nfev")
    outside_read(handle, "x")
    return handle
end

function outside_read(handle::Int64, paths...)
    info = zeros(Int64, 6 * length(paths))
    outside(c_fields, handle, to_json(paths), info)
    return nothing
end

function outside_tool(net::Int64, what, options, arrays...)
    vectors = [vec(Float64.(a)) for a in arrays]
    pointers, lengths = pointer.(vectors), Int64.(length.(vectors))
    GC.@preserve vectors return outside_handle(c_tool, net, what, wire(options), pointers, lengths, length(vectors))
end

function outside_derivatives(net::Int64, x::Vector{T}) where {T}
    P, value = length(x), zeros(1)
    g, H, v = zeros(T, P), zeros(T, P, P), ones(T, P)
    outside(c_loss, net, x, value)
    outside(c_gradient, net, x, g, value)
    outside(c_hessian, net, x, H)
    outside(c_hvp, net, x, v, g)
    return nothing
end

# ---- data ------------------------------------------------------------------------------------------------------------

"Inputs (D×N) and targets (O×N) without a generator of random numbers."
wave(::Type{T}, D, N) where {T} = T[sin(1.7d * n + 0.3n * n) for d in 1:D, n in 1:N]
targets(::Type{T}, O, N) where {T} = T[cos(0.9o + n) / 2 for o in 1:O, n in 1:N]

"A student of one hidden layer on noisy data, and where to begin."
function student(::Type{T}; k=3, D=2, N=6, f="tanh") where {T}
    net = outside_net(T, Any[[k, f, true], [1, "identity", true]], (loss="mse",), wave(T, D, N), targets(T, 1, N))
    return net, outside_start(net)
end

const TWO = Any[[2, "tanh", true], [1, "identity", true]]

# ---- what is done ----------------------------------------------------------------------------------------------------

function derivatives_workload(::Type{T}) where {T}
    polynomial = Dict("poly" => [0.0, 1.0, 0.5])
    units =
        Any[filter(!=("softmax"), ACTIVATIONS.names); polynomial; "x -> x * exp(-x^2)"; [["tanh", "relu", polynomial]]]
    for f in units
        shallow, deep = Any[[3, f, true], [1, "identity", true]], Any[[3, f, false], [3, f, true], [3, f, true]]
        for (layers, O) in ((shallow, 1), (deep, 3)), N in (1, 7)
            net = outside_net(T, layers, (loss="mse",), wave(T, 2, N), targets(T, O, N))
            outside_derivatives(net, outside_start(net))
        end
    end
    # There is one thread here; what several do is compiled without being run.
    for pass in (LossPass, GradientPass, ProductPass, HessianPass, GaussNewtonPass, MomentsPass)
        precompile(sum_together!, (pass, Net{T}, Vector{T}, Vector{T}, Int))
    end
    precompile(serve, (Net{T}, Worker{T}))
    # Layers so wide that products of matrices are BLAS's, and samples so many that there are several blocks.
    for (layers, D, O, N) in ((Any[[20, "tanh", true], [1, "identity", true]], 3, 1, 700),
                              (Any[[40, "tanh", true], [30, "softplus", true], [2, "identity", true]], 30, 2, 90))
        net = outside_net(T, layers, (loss="mse",), wave(T, D, N), targets(T, O, N))
        outside_derivatives(net, outside_start(net))
    end
    net = outside_net(T, Any[[3, "tanh", true], [2, "identity", true]], (loss="mse",), wave(T, 2, 6), targets(T, 2, 6))
    x = outside_start(net)
    outside(c_random_params, net, UInt64(2), "glorot_uniform", x)
    outside(c_predict, net, x, C_NULL, 6, zeros(T, 2, 6))
    outside(c_predict, net, x, wave(T, 2, 4), 4, zeros(T, 2, 4))
    for (what, fields) in ("jacobian" => [""], "gauss_newton" => [""], "hessian_blocks" => ["1", "2"],
                           "tangent_kernel" => [""],
                           "data_terms" => ["1", "2"])
        outside_read(outside_tool(net, what, NamedTuple(), x), fields...)
    end
    other = outside_handle(c_on, net, 4, wave(T, 2, 4), 2, targets(T, 2, 4), C_NULL)
    outside(c_release, Int64[other], 1)
    return nothing
end

function losses_workload(::Type{T}) where {T}
    X, labels = wave(T, 2, 6), T[1, 2, 3, 1, 2, 3]
    distributions = T[n == o ? 0.5 : 0.25 for o in 1:3, n in 1:6]
    for Y in (labels, distributions),
        layers in (Any[[3, "tanh", true], [3, "softmax", true]],
                   Any[[3, "relu", true], [3, "tanh", true], [3, "softmax", true]])
        net = outside_net(T, layers, (loss="nll",), X, Y)
        x = outside_start(net)
        outside_derivatives(net, x)
        outside_tool(net, "gauss_newton", NamedTuple(), x)
        outside_tool(net, "jacobian", NamedTuple(), x)
        for solver in ("auto", "NewtonTrustRegion")
            outside_solve(net, x, "train", (alg="auto", optim_solver=solver))
        end
    end
    for loss in ("nll", "correlation", "(f, y) -> log(cosh(f - y))")
        net = outside_net(T, Any[[3, "tanh", true], [2, "identity", true]], (loss=loss,), X, abs.(targets(T, 2, 6)))
        x = outside_start(net)
        outside_derivatives(net, x)
        outside_tool(net, "gauss_newton", NamedTuple(), x)
        outside_tool(net, "classify", NamedTuple(), x)
        outside_solve(net, x, "train", (alg="auto", optim_solver="NewtonTrustRegion"))
    end
    for options in ((loss="mse", l2=0.1, maxnorm=0.5, merge=[[1, 1, 2, 0.1]]), (loss="mse", output_factor=0.5))
        net = outside_net(T, Any[[3, "tanh", true], [1, "identity", true]], options, X,
                          targets(T, 1, 6); weights=ones(T, 6))
        x = outside_start(net)
        outside_derivatives(net, x)
        for solver in ("auto", "NewtonTrustRegion")
            outside_solve(net, x, "train", (alg="auto", optim_solver=solver))
        end
        outside_tool(net, "data_terms", NamedTuple(), x)
    end
    net = outside_net(T, Any[[3, "tanh", true], [1, "identity", true]], 2)
    outside(c_predict, net, outside_start(net), X, 6, zeros(T, 1, 6))
    return nothing
end

function flows_workload(::Type{T}) where {T}
    net, x = student(T)
    small = (abstol=1e-4, reltol=1e-4, n_samples_trajectory=20)
    for alg in FLOW_METHODS.names
        outside_solve(net, x, "flow", merge(small, (alg=alg, maxT=Inf)))
        outside_solve(net, x, "flow", merge(small, (alg=alg, maxT=3, dense=true, save_everystep=true, dt=0.001)))
        seen = Any[Dict("loss" => net), Dict("data_loss" => net), "ask"]
        outside_solve(net, x, "flow", merge(small, (alg=alg, maxT=3, event="number", observables=seen)))
        outside_solve(net, x, "flow",
                      merge(small, (alg=alg, maxT=3, event="truth", everystep=true)); tauinv=ones(length(x)))
    end
    outside_solve(net, x, "flow", merge(small, (alg="auto", maxT=1, tauinv=2)))
    creeping, z = student(T; N=40)                  # ExpAdams leaves it to Rodas5P, and the trajectory grows
    outside_solve(creeping, z, "flow", (alg="auto", maxT=Inf, maxiterations_ode=10_000))
    kinked, y = student(T; f="relu", N=20)
    outside_solve(kinked, y, "train", (alg="auto", maxT=3, optim_solver="NewtonTrustRegion"))
    run = outside_solve(net, x, "flow", merge(small, (alg="Tsit5", maxT=3, dense=true)))
    ode = HANDLES[run].ode
    times, points, coefficients = ode.trajectory.t, ode.trajectory.x, ode.sol.coefficients
    P = length(x)
    outside_read(outside_tool(0, "trajectory_distance", (parameters=P, terms=0), points, times, points), "1", "2")
    outside_read(outside_tool(0, "trajectory_distance", (parameters=P, terms=size(coefficients, 2)), points,
                              ode.sol.t, coefficients), "1", "2")
    outside_read(outside_tool(0, "facts", NamedTuple()), "")
    specs = [Dict("what" => "eigenvalues", "lowest" => 1, "highest" => 1), Dict("what" => "norm"),
             Dict("what" => "projections"), Dict("what" => "unit norms", "layer" => 1, "outgoing" => true),
             Dict("what" => "unit norms", "layer" => 1, "outgoing" => false),
             Dict("what" => "cosines of pairs", "layer" => 1, "pairs" => [[1, 2]]),
             Dict("what" => "cosines", "layer" => 1, "rows" => 3)]
    recordings = outside_tool(net, "recordings", (recordings=specs,), x, zero(x), x, ones(3))
    seen = [Dict("recording" => k) for k in 1:length(specs)]
    for alg in ("auto", "GradientDescent")
        outside_solve(net, x, "flow", merge(small, (alg=alg, maxT=1, observables=seen, recordings=recordings)))
    end
    outside_tool(net, "twin", NamedTuple())
    return nothing
end

function discrete_workload(::Type{T}) where {T}
    net, x = student(T)
    for alg in DISCRETE_METHODS.names
        for rest in (NamedTuple(), (batchsize=2, schedule=Dict("exponential" => 0.9)),
                     (batchsize=4, schedule=Dict("cosine" => [5, 0.1]), observables=["ask"]),
                     (schedule=[1.0, 0.5], save_everystep=true), (schedule="ask", memory=[1.0], event="number"))
            outside_solve(net, x, "flow", merge((alg=alg, learning_rate=0.01, maxT=Inf, seed=1), rest))
        end
    end
    rule = (alg="UpdateRule", rule="(x, g, s, k) -> (g, s)", state=Float64[], learning_rate=0.01)
    outside_solve(net, x, "flow", rule)
    outside_solve(net, x, "flow", (alg="auto", batchsize=2, batch_steps=2, shuffle=false, maxT=1))
    return nothing
end

function minimizers_workload(::Type{T}) where {T}
    net, x = student(T)
    for solver in MINIMIZE_METHODS.names
        outside_solve(net, x, "minimize", (optim_solver=solver,))
        outside_solve(net, x, "minimize", (optim_solver=solver, everystep=true, maxiterations_optim=400))
    end
    overparameterised, y = student(T; k=6, N=4)
    for solver in ("auto", "NewtonLBFGS", "VariableProjection", "NewtonTrustRegion", "LevenbergMarquardt")
        outside_solve(overparameterised, y, "minimize", (optim_solver=solver, maxiterations_optim=40))
    end
    return nothing
end

"Sizes from which on matrices are factored by LAPACK, and those from which on there are none."
function large_workload(::Type{T}) where {T}
    for (k, D) in ((15, 3), (50, 2))
        net, x = student(T; k=k, D=D, N=12)
        outside_derivatives(net, x)
        for alg in ("Rodas5P", "ExpAdams", "Exprb53s3", "TRBDF2", "QNDF")
            outside_solve(net, x, "flow", (alg=alg, maxT=1, maxiterations_ode=4))
        end
        for solver in MINIMIZE_METHODS.names
            outside_solve(net, x, "minimize", (optim_solver=solver, maxiterations_optim=3))
        end
    end
    net, x = student(T; k=130, N=5)
    length(x) > DENSE_LIMIT || error("the large net has too few parameters")
    for alg in ("auto", "TRBDF2", "QNDF", "ExpAdams", "Exprb53s3")
        outside_solve(net, x, "flow", (alg=alg, maxT=1, maxiterations_ode=4))
    end
    for solver in ("NewtonKrylov", "LBFGS")
        outside_solve(net, x, "minimize", (optim_solver=solver, maxiterations_optim=4))
    end
    return nothing
end

function landscape_workload(::Type{T}) where {T}
    net, x = student(T; k=2, D=1, N=12)
    layers, P = (layers=TWO, n_features=1), length(x)
    best = HANDLES[outside_solve(net, x, "minimize", (optim_solver="NewtonTrustRegion", maxiterations_optim=500))].x
    # every unit alike and without outgoing weight: null directions to explain
    silent = zero(x)
    classified =
        "point.kind point.index point.eigenvalues point.direction point.displacement_tolerance point.loss explanations"
    for point in (best, x, silent)
        outside_read(outside_tool(net, "classify", NamedTuple(), point), split(classified)...)
    end
    outside_tool(net, "classify", (gradient_tolerance=1e-3,), best)
    outside_tool(0, "split", merge(layers, (layer=1, unit=1, gamma=0.5)), best)
    outside_tool(net, "grow", (layer=1,), best)
    outside_tool(net, "grow", (layer=1,), best, [0.1, 0.2])
    outside_tool(net, "shrink", (layer=1, unit=1), best)
    outside_tool(net, "shrink", (layer=1, unit=1, into=2), best)
    outside_tool(0, "cosines", (columns=2,), [1.0, 0.0, 0.5, 0.5], [0.0, 1.0, 1.0, 0.0])
    match = outside_tool(net, "match", (teacher=TWO, teacher_features=1, layer=1), best, x)
    outside_read(match, string.(fieldnames(typeof(HANDLES[match])))...)
    outside_tool(net, "align", NamedTuple(), best, x)
    outside_read(outside_tool(net, "neurons", (layer=1,), best), "cosine", "angle", "distance", "sign")
    alike = outside_tool(net, "neurons", (layer=1, teacher=TWO, teacher_features=1), best, x)
    outside_read(outside_tool(0, "linked", (tolerance=0.1,), HANDLES[alike].angle), "")
    for distances in (false, true)
        outside_read(outside_tool(net, "cluster", (layer=1, tolerance=0.2, distances=distances), [best x]), "labels",
                     "sign",
                     "centre", "spread")
    end
    outside_read(outside_tool(net, "merge", (layer=1, groups=[[1, 2]]), best), "")
    outside_read(outside_tool(net, "neurons_along", (layer=1,), [best x]), "incoming", "outgoing", "cosine", "angle")
    outside_read(outside_tool(0, "binomial_intervals", (n=5, confidence=0.95), [0, 2, 5]), "")
    outside_read(outside_tool(net, "distinct", (tolerance=1e-6,), [best; best; x], [0.1, 0.1, 0.2]), "labels",
                 "representatives")
    plane, axis = [Float64.(x), [1.0; zeros(P - 1); 0.0; 1.0; zeros(P - 2)]], [0.0, 0.1]
    outside_read(outside_tool(net, "point", NamedTuple(), plane..., axis), "")
    outside_tool(net, "coordinates", NamedTuple(), plane..., best)
    outside_tool(net, "loss_grid", NamedTuple(), plane..., axis, axis)
    for (question, arrays) in ("on_subspace" => [axis], "on_grid" => [axis, axis])
        handle = outside_tool(net, question, NamedTuple(), plane..., arrays...)
        outside_solve(handle, x, "minimize", (optim_solver="NewtonTrustRegion",))
    end
    outside_tool(net, "spectrum", (k=2,), [x best])
    saddle = outside_tool(net, "escape", (sign=1,), zero(x) .+ T(1e-3))
    outside_read(saddle, "")
    run = outside_solve(net, x, "flow", (alg="auto", maxT=10, maxiterations_ode=200, n_samples_trajectory=50))
    t = HANDLES[run].ode.trajectory
    outside_tool(net, "passages", (contrast=10, plateau=1), t.t, t.x, t.loss, t.gnorm)
    outside_solve(outside_tool(net, "polishing", (digits=30,)), best, "minimize", (maxiterations_optim=3,))
    polished = outside_handle(c_solve, outside_tool(net, "polishing", (digits=25,)), best, "minimize",
                              wire((maxtime_optim=5, maxiterations_optim=3)), C_NULL, C_NULL, C_NULL)
    outside_read(polished, "x", "exact_x", "exact_loss", "exact_gnorm", "converged", "iterations", "stopped_by",
                 "total_time")
    splits_workload(T)
    T === Float64 && branches_workload()
    # Minima at infinity: units that merge, an exponential tail.
    wide, y = student(T; k=3, N=12)
    limits = [Any["tanh", Dict("derivative" => 0, "order" => 1, "eps" => ε), Dict("tail" => "tanh", "eps" => ε)]
              for ε in (0.0, 0.1)]
    alone = Any[Dict("tail" => "tanh", "eps" => 0.0), Dict("derivative" => 0, "order" => 1, "eps" => 0.0),
                Dict("sharp" => "tanh", "eps" => 0.0)]
    for units in [limits; [alone]]
        limit = outside_net(T, Any[[3, units, true], [1, "identity", true]], (loss="mse",), wave(T, 2, 12),
                            targets(T, 1, 12))
        outside_derivatives(limit, y)
        outside_read(outside_tool(limit, "to_limit", NamedTuple(), y), "q", "eps")
        outside_read(outside_tool(limit, "from_limit", NamedTuple(), y, [0.1, 0.1]), "")
        outside_tool(limit, "classify", NamedTuple(), y)
        units === alone && steps_workload(HANDLES[limit], Vector{T}(y))
    end
    chart = outside_net(T, Any[[2, limits[2][1:2], true], [1, "identity", true]], (loss="mse",), wave(T, 2, 12),
                        targets(T, 1, 12))
    outside_read(outside_tool(chart, "original_metric", NamedTuple()), "")
    outside_read(outside_tool(chart, "next_coefficients", NamedTuple(), outside_start(chart)), "")
    minimum_to_more_digits(HANDLES[net], best)
    held = outside_tool(wide, "constrain", (constraint=Dict("freeze" => [length(y) - 1], "tie" => []),), y)
    for subject in (wide, held)
        z = subject == wide ? y : y[1:end-1]
        outside_read(outside_tool(subject, "channels", (distance=0.3, growth=3), z), "")
        landed = outside_handle(c_solve, outside_tool(subject, "at_infinity", NamedTuple()), z, "minimize",
                                wire((maxtime_optim=5, maxiterations_optim=500)), C_NULL, C_NULL, C_NULL)
        outside_read(landed, "kind", "x", "q", "loss", "gnorm", "channels", "chains", "coefficients", "iterations",
                     "stopped_by", "reason", "total_time")
    end
    outside_read(outside_tool(held, "carried", (to=wide,)), "first", "rows", "values", "c", "blocked")
    # Separable classes.
    separable = outside_net(T, Any[[2, "softmax", true]], (loss="nll",), T[-1 -2 1 2], T[1, 1, 2, 2])
    run = outside_solve(separable, outside_start(separable), "minimize",
                        (optim_solver="NewtonTrustRegion", maxiterations_optim=30))
    outside_tool(separable, "classify", NamedTuple(), HANDLES[run].x)
    return nothing
end

"A step that a sample pulls inside."
function steps_workload(limit::Net{T}, q::Vector{T}) where {T}
    rounds = Rounds{T}(MinimizeOptions(maxiterations=20, maxtime=5.0), Monitor(), seconds(), 0, Stop.running)
    moved = move_steps(rounds, limit, limit, place_steps!(limit, copy(q)), 10)
    X, h, _ = sharp_samples(limit, q, 1, 3)
    inside = put_inside(limit, q, 1, 3, X, h, [1])
    inside === nothing || (let_out(inside..., 1, 3); classify(inside...); gradient(inside...))
    ways_down(moved...)
    return nothing
end

function splits_workload(::Type{T}) where {T}
    net = outside_net(T, Any[[1, "square", false], [1, "identity", false]], NamedTuple(), T[1], T[1])
    best = [1.0, 2.0]
    handle = outside_tool(net, "saddle_line", (layer=1, unit=1), best, [-0.5, 0.5, 1.5])
    line = HANDLES[handle]
    outside_read(handle, (string(f) for f in fieldnames(typeof(line)) if f !== :net)...)
    outside_tool(net, "off_line", (layer=1, unit=1, rank=0, gamma=0.5, side=1, size=1e-3, open=[1]), best,
                 line.curvature, permutedims(line.coupling))
    outside_tool(keep!(line.net), "pair_state", (layer=1, unit=1, other=2), line.x[:, 1])
    return nothing
end

function branches_workload()
    linear = Any[[1, "identity", false], [1, "identity", false]]
    net, other = (outside_net(Float64, linear, NamedTuple(), [1.0], [y]) for y in (1.0, 2.0))
    curved = outside_net(Float64, Any[[1, "tanh", false], [1, "identity", false]], NamedTuple(), [1.0], [1.0])
    whole = (low=0, high=3, max_step=0.05, max_points=100, max_branches=20)
    for to in (NamedTuple(), (to=other,), (to=curved,))
        question = outside_tool(net, "following", merge(whole, to))
        found = outside_handle(c_solve, question, [0.0, 0.0], "minimize", wire((maxtime=10,)), C_NULL, C_NULL, C_NULL)
        paths = ["branches.1.$f" for f in fieldnames(Branch)]
        outside_read(found, "n_branches", "n_points", "finished", paths...)
        HANDLES[found].n_points > 0 && outside_read(found, ("points.1.$f" for f in fieldnames(SpecialPoint))...)
    end
    return nothing
end

function proof_workload(::Type{T}) where {T}
    certificate = ["certified", "reason", "x", "radius", "uniqueness_radius", "index", "kind", "loss_interval.1",
                   "loss_interval.2", "eigenvalue_bounds.1", "eigenvalue_bounds.2", "fixed", "contraction"]
    fields = ["gauges"; "total_time"; ["proved.$name" for name in certificate]]
    X, Y = wave(T, 1, 12), targets(T, 1, 12)
    one_hidden(f) = outside_net(T, Any[[2, f, true], [1, "identity", true]], (l2=0.1,), X, Y)
    deep = outside_net(T, Any[[2, "tanh", true], [2, "softplus", true], [2, "softmax", true]], (loss="nll", l2=0.1), X,
                       T[1 + i % 2 for i in 1:12])
    # Of one net each kind: the others' code is mostly the same, and float32 nets are proved in float64.
    for net in (T === Float64 ? [one_hidden("tanh"), one_hidden("relu"), deep,
                                 infinite_net(T, "sigmoid2", "normal_cdf")] : [])
        run = outside_solve(net, outside_start(net), "minimize",
                            (optim_solver="NewtonTrustRegion", maxiterations_optim=200))
        x = HANDLES[run].x
        question = outside_tool(net, "certification", (precision=128, polish=true), x)
        proved = outside_handle(c_solve, question, x, "minimize", wire((maxtime_optim=60,)), C_NULL, C_NULL, C_NULL)
        outside_read(proved, fields...)
    end
    if T === Float64
        net = one_hidden("tanh")
        held = outside_tool(net, "constrain", (constraint=Dict("freeze" => [0], "tie" => []),), outside_start(net))
        question = outside_tool(held, "certification", (precision=128, polish=true), outside_start(held))
        outside_handle(c_solve, question, outside_start(held), "minimize", wire((maxtime_optim=1,)), C_NULL, C_NULL,
                       C_NULL)
        layers = (layers=Any[[2, "tanh", true], [1, "identity", true]], n_features=1)
        x, none = outside_start(net), zeros(2)
        outside_read(outside_tool(0, "proved_different", layers, [x; x], none, none, none, none), "different",
                     "representatives")
    end
    return nothing
end

function infinite_net(::Type{T}, f, h) where {T}
    teacher, student = (outside_net(T, Any[[2, a, true], [1, "identity", true]], 2) for a in (f, h))
    return outside_handle(c_infinite_net, teacher, outside_start(teacher, 3), student)
end

function infinite_workload(::Type{T}) where {T}
    for (f, h) in (("tanh", "tanh"), ("relu", "relu"), ("sigmoid2", "sigmoid2"), ("normal_cdf", "normal_cdf"),
                   ("softplus", "softplus"),
                   (Dict("poly" => [0.0, 1.0, 0.5]), "square"), ("gelu", "relu"), ("sigmoid2", "tanh"),
                   ("tanh", "relu"))
        net = infinite_net(T, f, h)
        x = outside_start(net)
        outside_derivatives(net, x)
        outside_solve(net, x, "train", (alg="auto", maxT=1, optim_solver="NewtonTrustRegion", maxiterations_optim=4))
        outside_tool(net, "classify", NamedTuple(), x)
    end
    outside_read(outside_tool(0, "gauss_hermite", (n_features=2, order=5, threshold=1e-20)), "X", "w")
    return nothing
end

function constraints_workload(::Type{T}) where {T}
    net, x = student(T)
    both = Dict("freeze" => [1], "tie" => [["p[0]", "-p[2]"]])
    n = length(x) - 2
    general = Dict("first" => collect(0:n), "rows" => collect(0:n-1), "values" => ones(n), "c" => x)
    for rule in (both, general)
        held = outside_tool(net, "constrain", (constraint=rule,), x)
        z = Vector{T}(HANDLES[outside_tool(held, "coordinates_of", NamedTuple(), x)])
        outside_derivatives(held, z)
        outside_tool(net, "nearest", (constraint=rule,), x)
        outside_read(outside_tool(held, "embed", NamedTuple(), z), "")
        outside_read(outside_tool(held, "constraint", NamedTuple()), "first", "rows", "values", "c")
        for f in ("jacobian", "gauss_newton", "data_terms", "classify")
            outside_tool(held, f, NamedTuple(), z)
        end
        for solver in MINIMIZE_METHODS.names
            outside_solve(net, x, "minimize", (optim_solver=solver, constraint=rule))
        end
        best = outside_solve(net, x, "train", (alg="auto", maxT=3, dense=true, constraint=rule))
        outside_tool(net, "classify", (constraint=rule,), HANDLES[best].x)
    end
    outside_solve(net, x, "flow", (alg="Adam", learning_rate=0.01, batchsize=2, seed=1, maxT=Inf, constraint=both))
    kinked, y = student(T; f="relu", N=20)
    outside_solve(kinked, y, "flow", (alg="auto", maxT=3, constraint=both))
    outside_solve(outside_tool(net, "polishing", (digits=25, constraint=both)), x, "minimize", (maxiterations_optim=3,))
    return nothing
end

"Calls by name and by object, as a session of Julia has them."
function julia_workload()
    net = Net(layers=((3, tanh, true), (1, identity, true)), input=wave(Float64, 2, 6), target=targets(Float64, 1, 6))
    for p in (random_params(0, net), random_params(MersenneTwister(1), net))
        loss(net, p), gradient(net, p), hessian(net, p), hvp(net, p, p), predict(net, p)
        res = train(net, p; maxtime_ode=1, maxiterations_ode=5, maxtime_optim=1, maxiterations_optim=5)
        flow(net, p; maxT=1.0, maxiterations=5)
        flow(GradientFlowProblem(net, p; maxT=1.0); maxiterations=5)
        minimize(net, p; maxiterations=5)
        sprint(show, MIME("text/plain"), res)
    end
    sprint(show, MIME("text/plain"), net)
    c_table()
    return nothing
end

"Errors are told over the border too."
function refusals_workload()
    net, x = student(Float64)
    for (f, arguments) in ((c_tool, (net, "none", "{}", C_NULL, C_NULL, 0)),
                           (c_tool, (net, "none", "{", C_NULL, C_NULL, 0)))
        try
            outside_handle(f, arguments...)
        catch
        end
    end
    outside_read(outside_tool(0, "traceback", NamedTuple()), "")
    buffer = zeros(UInt8, 200)
    c_last_error(pointer(buffer), 200)
    return nothing
end
