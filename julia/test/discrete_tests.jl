# Discrete methods: recursions by hand, the batches, the clock, stops and allocations. (Python's tests compare with
# PyTorch's optimisers.)
using Test
using MLPGF
using MLPGF: AbstractNet, Batches, Clock, Xoshiro256, make_state, next!, shuffle!, step!
import MLPGF: n_params, value_and_gradient!

# L = (a/2) Σ x², without samples.
struct Bowl{T} <: AbstractNet{T}
    n::Int
    a::T
end
n_params(b::Bowl) = b.n
function value_and_gradient!(g::Vector{T}, b::Bowl{T}, x::Vector{T}) where {T}
    g .= b.a .* x
    return b.a * sum(abs2, x) / 2
end

# L = -x: a gradient of -1 everywhere.
struct Slope{T} <: AbstractNet{T} end
n_params(::Slope) = 1
value_and_gradient!(g::Vector{T}, ::Slope{T}, x::Vector{T}) where {T} = (g[1] = -one(T); -x[1])

function regression(N; T=Float64, loss="mse", options...)
    X = T[sin(i * d + 0.3d) for d in 1:2, i in 1:N]
    Y = loss == "nll" ? [1 + i % 3 for i in 1:N] : T[cos(2X[1, i]) + 0.1sin(7.0i) for _ in 1:1, i in 1:N]
    last = loss == "nll" ? (3, softmax, true) : (1, identity, true)
    return Net(layers=((3, tanh, true), last), input=X, target=Y, loss=loss, T=T; options...)
end

const ALL = (GradientDescent(), Momentum(), Nesterov(), RMSprop(), Adam(), AdamW())

@testset "discrete" begin
    @testset "gradient descent on a bowl, $T" for T in (Float32, Float64, BigFloat)
        res = flow(Bowl{T}(3, T(2)), T[1, -2, 3]; alg=GradientDescent(learning_rate=0.125), maxiterations=20)
        @test res.x ≈ T[1, -2, 3] * T(3 // 4)^20 rtol = 8eps(T)
        @test res.t == 20 * 0.125
        @test res.loss ≈ 14 * T(3 // 4)^40 rtol = 100eps(T)
        @test eltype(res.x) == T
    end

    # Euler's method for the flow: half the step, half the error.
    @testset "first order in the learning rate" begin
        net = regression(40)
        x0 = random_params(0, net)
        exact = flow(net, x0; alg=Rodas5P(), maxT=2, abstol=1e-11, reltol=1e-11)
        errors = map((0.02, 0.01)) do η
            res = flow(net, x0; alg=GradientDescent(learning_rate=η), maxT=2)
            @test res.stopped_by == Stop.maxT && res.t ≈ 2 && res.iterations == 2 / η
            maximum(abs, res.x - exact.x)
        end
        @test 1.9 < errors[1] / errors[2] < 2.1
        # Small steps with momentum follow the flow too, on the clock that counts the memory.
        for method in (Momentum, Nesterov)
            errors = map((2e-4, 1e-4)) do η
                res = flow(net, x0; alg=method(learning_rate=η), maxT=2)
                @test res.iterations < 2 / η / 9
                maximum(abs, res.x - exact.x)
            end
            @test 1.8 < errors[1] / errors[2] < 2.2
        end
    end

    # Where the gradient is one everywhere, t is the way that was gone, whatever momentum and schedule.
    @testset "the clock of $(typeof(alg))" for alg in (GradientDescent(schedule=CosineDecay(30)),
            Momentum(momentum=0.7, schedule=k -> 1 / (k + 1)), Nesterov(momentum=0.95))
        res = flow(Slope{Float64}(), [0.0]; alg=alg, maxiterations=40, save_everystep=true)
        @test res.trajectory.t ≈ vec(res.trajectory.x) rtol = 1e-14
        @test length(res.trajectory) == 41
    end

    @testset "schedules" begin
        rates(schedule) = diff(flow(Slope{Float64}(), [0.0]; alg=GradientDescent(learning_rate=0.5, schedule=schedule),
                                    maxiterations=5, save_everystep=true).trajectory.t)
        @test rates(nothing) ≈ fill(0.5, 5)
        @test rates(ExponentialDecay(0.5)) ≈ 0.5 .* [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16]
        @test rates(CosineDecay(4)) ≈ 0.5 .* [1, (1 + √0.5) / 2, 0.5, (1 - √0.5) / 2, 0] atol = 1e-15
        @test rates(CosineDecay(2; final=0.2)) ≈ 0.5 .* [1, 0.6, 0.2, 0.2, 0.2]
        @test rates([1, 0.5, 2]) ≈ 0.5 .* [1, 0.5, 2, 2, 2]
        @test rates(k -> k + 1) ≈ 0.5 .* (1:5)
        @test_throws ArgumentError rates(k -> NaN)
        @test_throws ArgumentError rates([1, -1.0])
        @test_throws ArgumentError rates(Float64[])
        @test_throws ArgumentError GradientDescent(schedule="cosine")
        @test_throws ArgumentError ExponentialDecay(1.5)
        @test_throws ArgumentError CosineDecay(0)
        @test_throws ArgumentError Adam(learning_rate=0)
        @test_throws ArgumentError Adam(betas=(0.9, 1))
        @test_throws ArgumentError Momentum(momentum=1)
        @test_throws ArgumentError AdamW(weight_decay=-1)
    end

    # The gradient of a batch is that of a net made of the same samples.
    @testset "batches of $b of $N, $loss" for (N, b, loss) in ((600, 300, "mse"), (37, 10, "mse"), (1000, 256, "nll"),
                                                              (5, 1, "nll"), (70, 33, "mse"))
        w = [0.5 + (i % 4) for i in 1:N]
        net = regression(N; loss=loss, weights=w, l2=0.1)
        X = Float64[sin(i * d + 0.3d) for d in 1:2, i in 1:N]
        Y = loss == "nll" ? [1 + i % 3 for i in 1:N] : Float64[cos(2X[1, i]) + 0.1sin(7.0i) for _ in 1:1, i in 1:N]
        θ = random_params(1, net)
        batches = Batches(net, b, 7, true)
        rng, order = Xoshiro256(7), collect(1:N)
        g, expected = similar(θ), similar(θ)
        for epoch in 1:2
            shuffle!(order, rng)
            @test sort(order) == 1:N
            for first in 1:b:N
                chosen = order[first:min(first + b - 1, N)]
                part = MLPGF.on(net, X[:, chosen], loss == "nll" ? Y[chosen] : Y[:, chosen]; weights=w[chosen])
                value = value_and_gradient!(g, next!(batches), θ)
                @test value ≈ value_and_gradient!(expected, part, θ) rtol = 1e-13
                @test g ≈ expected rtol = 1e-12
            end
        end
    end
    @test count(shuffle!(collect(1:1000), Xoshiro256(1)) .== 1:1000) < 6

    @testset "in the order of the data" begin
        net = regression(50)
        X = Float64[sin(i * d + 0.3d) for d in 1:2, i in 1:50]
        Y = Float64[cos(2X[1, i]) + 0.1sin(7.0i) for _ in 1:1, i in 1:50]
        θ = random_params(0, net)
        g, expected = zero(θ), zero(θ)
        batches = Batches(net, 20, 7, false)
        for part in (1:20, 21:40, 41:50, 1:20)
            value_and_gradient!(g, next!(batches), θ)
            value_and_gradient!(expected, MLPGF.on(net, X[:, part], Y[:, part]), θ)
            @test g ≈ expected rtol = 1e-12
        end
    end

    @testset "all samples are seen once an epoch, then less often" begin
        net = regression(64)
        x0 = random_params(0, net)
        res = flow(net, x0; alg=GradientDescent(), batchsize=16, maxiterations=4 * 200, seed=3,
                   n_samples_trajectory=1000)
        steps = round.(Int, res.trajectory.t / 0.01)
        @test steps[1:17] == 0:4:64
        @test all(d -> d >= 4, diff(steps[1:end-1])) && diff(steps)[end-2] > 30
        @test res.iterations == 800 && res.x == res.trajectory.x[:, end]
        # another seed, another path; the same seed, the same path
        again(seed) = flow(net, x0; alg=GradientDescent(), batchsize=16, maxiterations=50, seed=seed).x
        @test again(3) == again(3) != again(4)
        every = flow(net, x0; alg=Adam(), batchsize=16, maxiterations=10, save_everystep=true)
        @test length(every.trajectory) == 11
        @test all(i -> every.trajectory.loss[i] ≈ loss(net, every.trajectory.x[:, i]), 1:11)
        # a batch of all samples is no batch
        @test flow(net, x0; alg=Adam(), batchsize=64, maxiterations=9).x == flow(net, x0; alg=Adam(), maxiterations=9).x
    end

    @testset "$(typeof(alg)) descends, T = $T" for alg in ALL, T in (Float32, Float64)
        net = regression(100; T=T)
        x0 = random_params(0, net)
        res = flow(net, x0; alg=alg, maxiterations=300)
        @test res.stopped_by == Stop.maxiterations && res.iterations == 300
        @test res.loss < loss(net, x0)
        @test res.loss ≈ loss(net, res.x) && res.gnorm ≈ maximum(abs, gradient(net, res.x))
        @test res.best.loss <= minimum(res.trajectory.loss)
        @test res.best.loss ≈ loss(net, res.best.x)
        @test res.alg == string(typeof(alg).name.name)
        # frozen parameters stay, and twice the inverse time constants are twice the rate
        frozen = flow(net, x0; alg=alg, maxiterations=10, tauinv=[i == 2 ? 0.0 : 1.0 for i in eachindex(x0)])
        @test frozen.x[2] == x0[2] && all(frozen.x[3:end] .!= x0[3:end])
        T == Float64 && !(alg isa AdamW) && @test flow(net, x0; alg=alg, maxiterations=10, tauinv=2).x ≈
            flow(net, x0; alg=typeof(alg)(; learning_rate=2alg.learning_rate), maxiterations=10).x rtol = 1e-12
    end

    @testset "stops" begin
        bowl(; a=1.0, options...) =
            flow(Bowl{Float64}(2, a), [1.0, 1.0]; alg=GradientDescent(learning_rate=0.1), options...)
        @test bowl(min_gnorm=0.5).stopped_by == Stop.min_gnorm && bowl(min_gnorm=0.5).gnorm <= 0.5
        @test bowl(minloss=0.1).stopped_by == Stop.minloss
        @test bowl(maxT=1).stopped_by == Stop.maxT && bowl(maxT=1).iterations == 10
        @test bowl(maxT=0).iterations == 0
        @test bowl(maxtime=0).stopped_by == Stop.maxtime
        # nothing moves any more
        line = Net(layers=((1, identity, true),), input=[0.0 1.0 2.0], target=[1.0 2.5 2.9])
        res = flow(line, [0.0, 0.0]; alg=GradientDescent(learning_rate=0.2), maxtime=60)
        @test res.stopped_by == Stop.roundoff && res.gnorm < 1e-12
        # steps too long: the last finite point and the best one are returned
        res = bowl(a=1e3)
        @test res.stopped_by == Stop.diverged && all(isfinite, res.x) && isfinite(res.loss)
        @test res.best.x == [1, 1] && res.best.loss == 1e3
        net = regression(50)
        stop = Monitor((phase, k, t, l, gn, x) -> k >= 7 ? Stop.callback : Stop.running; interval=0)
        @test bowl(monitor=stop).stopped_by == Stop.callback && bowl(monitor=stop).iterations == 7
        @test_throws ArgumentError bowl(batchsize=1)                        # no samples to choose from
        @test_throws ArgumentError bowl(dense=true)
        @test_throws ArgumentError flow(net, random_params(0, net); batchsize=4, dense=true)
        @test_throws ArgumentError flow(net, random_params(0, net); alg=Adam(), batchsize=0)
        # An event by a truth, by a sign, at the start
        @test bowl(event=(t, x) -> x[1] < 0.5).x[1] ≈ 0.9^7
        @test bowl(event=(t, x) -> x[1] < 0.5).stopped_by == Stop.event
        @test bowl(event=(t, x) -> x[2] - 0.5).iterations == 7
        @test bowl(event=(t, x, l, gn) -> l < 0.25, maxiterations=100).iterations == 7
        @test bowl(event=(t, x) -> true).iterations == 0
        seen = bowl(observables=["first" => x -> x[1], "sum" => sum], maxiterations=5, save_everystep=true).trajectory
        @test seen["first"] == seen.x[1, :] && seen["sum"] == vec(sum(seen.x; dims=1))
        # train goes on from the last point and keeps the best
        res = train(Bowl{Float64}(2, 1e3), [1.0, 1.0]; alg=GradientDescent(learning_rate=0.1))
        @test res.optim === nothing && res.x == [1, 1] && res.loss == 1e3
    end

    # Watched at interval 0, a run is reported step by step, the one that ends it included.
    @testset "every step is reported" begin
        seen = Tuple{Symbol,Int}[]
        # One evaluation is reported too where it takes long, as it may on a machine that is busy.
        look = Monitor((phase, k, t, l, gn,
                        x) -> (phase == :evaluation || push!(seen, (phase, k)); Stop.running); interval=0)
        train(regression(50), random_params(0, regression(50)); alg=Adam(), maxiterations_ode=5, maxiterations_optim=4,
              monitor=look)
        @test seen == [[(:flow, k) for k in 0:5]; [(:minimize, k) for k in 0:4]]
    end

    @testset "a slow evaluation is given up, $threads threads" for threads in unique((1, Threads.nthreads()))
        X = reshape(sin.(1.0:400_000), 2, :)
        net = Net(layers=((40, tanh, true), (40, tanh, true), (1, identity, true)), input=X, target=X[1:1, :],
                  threads=threads)
        x0 = random_params(0, net)
        solvers = (limit -> flow(net, x0; alg=Adam(), maxtime=limit),
                   limit -> flow(net, x0; alg=Rodas5P(), maxtime=limit),
                   limit -> minimize(net, x0; maxtime=limit))
        for solve in solvers
            solve(1e-3)
            @test (@elapsed solve(1e-3)) < 1
            @test solve(1e-3).stopped_by == Stop.maxtime
            @test net.monitor === nothing
        end
    end

    # 5 batches an epoch: the run ends inside the second and the fourth epoch.
    @testset "$(typeof(alg)) goes on where a limit ended it, T = $T" for T in (Float32, Float64), alg in
            (ALL..., UpdateRule((x, g, (v, w), k) -> (v + g / (k + 1), (v / 2 + g, w + v)); state=(0.0, 1.0)), Tsit5())
        net, schedule = regression(100; T=T), k -> 1 / (1 + k)^2
        alg isa MLPGF.DiscreteMethod && !(alg isa UpdateRule) && (alg = typeof(alg)(schedule=schedule))
        x0 = random_params(0, net)
        for options in ((batchsize=23, seed=7, batch_steps=2), (batchsize=23, shuffle=false, batch_steps=2),
                        NamedTuple(),
                        (batchsize=23, constraint=Constraint(x0; freeze=[2], tie=[[1, 3]]), batch_steps=2))
            haskey(options, :batchsize) || alg isa MLPGF.DiscreteMethod || continue
            parts, x, memory = Any[], x0, nothing
            for n in (8, 9, 3)
                push!(parts, flow(net, x; alg=alg, maxiterations=n, memory=memory, options...))
                x, memory = parts[end].x, parts[end].memory
            end
            whole = flow(net, x0; alg=alg, maxiterations=20, options...)
            @test x == whole.x && memory == whole.memory && memory[1] == 20
            @test sum(part -> part.t, parts) ≈ whole.t
            length(memory) == 1 && continue
            @test flow(net, parts[1].x; alg=alg, maxiterations=12, options...).x != x
            @test_throws ArgumentError flow(net, x0; alg=alg, memory=[1.0, 2.0], options...)
        end
    end

    @testset "no allocation in a step" begin
        ball = UpdateRule((x, g, (v,), k) -> (0.9v + g, (0.9v + g,)); state=(0.0,))
        scheduled = (Adam(schedule=CosineDecay(10^4)), GradientDescent(schedule=k -> 1.0))
        for alg in (ALL..., ball, scheduled...), b in (nothing, 32)
            net = regression(100)
            x0 = random_params(0, net)
            run(n) = flow(net, x0; alg=alg, batchsize=b, maxiterations=n, n_samples_trajectory=2)
            run(40)
            @test abs(@allocated(run(3200)) - @allocated(run(320))) < 1000
        end
    end
end
