# What a flow records holds at the point it is recorded with; events between the steps; losses accurate relative to
# themselves.
using MLPGF, Random, Test
Base.include(@__MODULE__, joinpath(@__DIR__, "draws.jl"))

const METHODS = (Tsit5(), RK4(), Rodas5P(), TRBDF2(), QNDF(), QNDF(linsolve=:krylov), Exprb53s3(), ExpAdams())

@testset "loss and gradient norm are those at the point, $alg, $tol" for alg in METHODS, tol in (1e-1, 1e-2, 1e-6)
    rng = MersenneTwister(1)
    net = Net(layers=((3, tanh, true), (1, identity, true)), input=randn(rng, 2, 60), target=randn(rng, 1, 60))
    p = random_params(0, net)
    for tauinv in (1, 0.5 .+ rand(rng, length(p))), samples in (20, 100)
        t = flow(net, p; alg=alg, maxT=100.0, abstol=tol, reltol=tol, tauinv=tauinv,
                 n_samples_trajectory=samples).trajectory
        @test all(isapprox(t.loss[m], loss(net, t.x[:, m]); rtol=1e-13) for m in 1:length(t))
        @test all(isapprox(t.gnorm[m], maximum(abs, gradient(net, t.x[:, m])); rtol=1e-9) for m in 1:length(t))
    end
end

# How far the logarithm of v lies, at the times of all steps between two points kept, from the line between those.
function off_lines(kept, every, v)
    off = zeros(length(kept))
    for (t, value) in zip(every.t[2:end], getproperty(every, v)[2:end])
        m = max(searchsortedfirst(kept.t, t), 2)
        a, b = getproperty(kept, v)[m-1:m]
        s = m == 2 ? 1.0 : log(t / kept.t[m-1]) / log(kept.t[m] / kept.t[m-1])
        off[m] = max(off[m], abs(log(value) - (1 - s) * log(a) - s * log(b)))
    end
    return off
end

@testset "what lines between the points kept miss, $name" for (name, layers, kind, l2, alg, maxT) in (
        ("regression", ((3, tanh, true), (1, identity, true)), :sine, 0.0, Tsit5(), 100.0),
        ("regression", ((3, tanh, true), (1, identity, true)), :sine, 0.0, Auto(), 1e10),
        ("no noise", ((3, tanh, true), (1, identity, true)), :teacher, 0.0, Rodas5P(), 1e10),
        ("no noise", ((3, tanh, true), (1, identity, true)), :teacher, 0.0, ExpAdams(), 1e10),
        ("classes", ((4, softplus, true), (2, "softmax", true)), :classes, 1e-3, Rodas5P(), 1e10),
        ("classes", ((4, softplus, true), (2, "softmax", true)), :classes, 1e-3, Tsit5(), 100.0),
        ("relu", ((6, relu, true), (1, identity, true)), :sine, 0.0, Auto(), 1e3),
        ("to infinity", ((3, tanh, true), (2, "softmax", true)), :classes, 0.0, Auto(), 1e10),
        ("to infinity", ((3, tanh, true), (2, "softmax", true)), :classes, 0.0, ExpAdams(), 1e6))
    X = normals(1, 2, 60)
    target = kind == :sine ? sin.(3 .* X[1:1, :]) : kind == :teacher ? tanh.(X[1:1, :] .- X[2:2, :]) :
             1 .+ (X[1, :] .> X[2, :])
    net = Net(layers=layers, input=X, target=target, loss=(kind == :classes ? "nll" : "mse"), l2=l2)
    run(; options...) = flow(net, random_params(1, net); alg=alg, maxT=maxT, maxiterations=1000, options...).trajectory
    every, default = run(save_everystep=true), run()
    @test iszero(every.within) && every.t[end] == default.t[end] && min(100, length(every)) <= length(default)
    for kept in (default, run(n_samples_trajectory=30))
        @test all(off_lines(kept, every, :loss) .<= kept.within[1, :] .+ 1e-9)
        @test all(off_lines(kept, every, :gnorm) .<= kept.within[2, :] .+ 1e-9)
    end
    @test maximum(default.within) <= MLPGF.WITHIN
    @test length(run(observables=["norm" => x -> sum(abs2, x)])) <= 100
end

@testset "events between steps, $alg" for alg in METHODS
    net = Net(layers=((1, identity, true),), input=[0.0 1.0], target=[1.0 3.0])
    run(event) = flow(net, [0.0, 0.0]; alg=alg, maxT=2.0, dt=0.1, event=event)
    twice = run((t, x) -> (t - 0.5) * (t - 0.51))
    @test twice.stopped_by == Stop.event && abs(twice.t - 0.5) < 1e-9
    @test run((t, x) -> t).stopped_by == Stop.event && run((t, x) -> t).t == 0
    within = run((t, x) -> 0.3 < t < 0.35)
    @test within.stopped_by != Stop.event || 0.3 <= within.t <= 0.35
    @test run((t, x) -> 1 + (t - 0.5)^2).stopped_by == Stop.maxT
end

@testset "negative log-likelihood of sure samples, $T" for T in (Float64, Float32)
    make(S) = Net(layers=((2, "softmax", true),), input=S[-1 -2 1 2], target=[1, 1, 2, 2], loss="nll", T=S)
    net, exact = make(T), make(BigFloat)
    for s in (T == Float64 ? (1, 10, 40, 200) : (1, 10, 25))
        p, q = T[-s, s, 0, 0], BigFloat[-s, s, 0, 0]
        near(a, b) = all(abs(x - y) <= 8 * eps(T) * abs(y) for (x, y) in zip(a, b))
        @test near(loss(net, p), loss(exact, q))
        @test near(gradient(net, p)[1:2], gradient(exact, q)[1:2])
        @test near(hessian(net, p)[[1, 6]], hessian(exact, q)[[1, 6]])
    end
end
