# What a flow records holds at the point it is recorded with; events between the steps; losses accurate relative to
# themselves.
using MLPGF, Random, Test

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
