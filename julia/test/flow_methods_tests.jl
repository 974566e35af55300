# Every flow method on the table of problems; the orders that theory gives them; saddles, products in place of the
# Hessian, events and observables.
using Test, LinearAlgebra
using MLPGF
using MLPGF: FlowProblem, FlowState, flow
Base.include(@__MODULE__, joinpath(@__DIR__, "problems.jl"))

const EXPLICIT = (Tsit5(), RK4())
const STIFF = (Rodas5P(), TRBDF2(linsolve=:cholesky), TRBDF2(linsolve=:krylov), QNDF(linsolve=:cholesky),
               QNDF(linsolve=:krylov), Exprb53s3(), ExpAdams())
const METHODS = (EXPLICIT..., STIFF...)

# One step of length h from x0, and its polynomial.
function single_step(alg, net::AbstractNet{T}, x0, h; tolerance=1e-12) where {T}
    problem = FlowProblem(net, 1)
    # A tight tolerance, that the equations of implicit stages be solved to it, and none for escape directions.
    state = FlowState(problem, tolerance, tolerance)
    state.escape = 10.0
    cache = MLPGF.make_state(alg, T, problem.n)
    copyto!(state.y, x0)
    MLPGF.value_and_gradient_at!(state.g, problem, state.y)
    state.h = h
    @test MLPGF.step!(cache, problem, state)
    degree = MLPGF.interpolant_degree(cache)
    c = zeros(T, problem.n * (degree + 1))
    MLPGF.interpolant!(c, 0, cache, problem, state)
    return copy(state.ynew), reshape(c, problem.n, degree + 1), copy(state.err)
end

relative(x, y) = norm(x - y) / norm(y)

@testset "flow methods" begin
    # (method, order, order of the error estimate's local error, order of the interpolant)
    @testset "order of $alg" for (alg, order, estimate, dense) in
                                 ((RK4(), 4, 4, 3), (TRBDF2(linsolve=:cholesky), 2, 3, 2),
                                  (TRBDF2(linsolve=:krylov), 2, 3, 2), (Exprb53s3(), 5, 4, 4))
        p = rotated(BigFloat, "", [(:quartic, 1.0), (:well, 2.0)], (1, 0.5), 1.0)
        function errors(h)
            x, c, err = single_step(alg, p.net, p.x0, h)
            within = maximum(norm(c * [BigFloat(s)^m for m in 0:size(c, 2)-1] - p.exact(s * BigFloat(h)))
                             for s in (0.3, 0.6, 0.9))
            return norm(x - p.exact(BigFloat(h))), norm(err), within
        end
        rates = log2.(errors(0.02) ./ errors(0.01))
        @test order + 0.6 < rates[1] < order + 1.5
        @test estimate - 0.4 < rates[2] < estimate + 0.5
        @test dense + 0.6 < rates[3] < dense + 1.7
    end

    @testset "Cholesky factors of $n rows in $T" for T in (Float64, Float32, BigFloat),
                                                      n in (T == BigFloat ? (0:5) : vcat(0:33, 100, 255:258))
        B = T.(normal(n, n, n))
        A = B * B' + n * I
        W = T[i < j ? NaN : A[i, j] for i in 1:n, j in 1:n]        # nothing above the diagonal is read
        @test MLPGF.cholesky_lower!(W)
        L = LowerTriangular(W)
        @test norm(L * L' - A) <= 4 * n * eps(T) * norm(A)
        b = T.(normal(n + 1, n))
        u = MLPGF.cholesky_solve!(W, copy(b))
        @test norm(A * u - b) <= 10 * n * eps(T) * norm(A) * norm(u)
        for k in (1, n ÷ 2, n), pivot in (-1, NaN)
            1 <= k <= n || continue
            V = copy(A)
            V[k, k] = pivot
            @test !MLPGF.cholesky_lower!(V)
        end
    end
    @testset "global order of $alg" for (alg, order) in ((RK4(), 4), (TRBDF2(linsolve=:cholesky), 2), (Exprb53s3(), 5))
        p = rotated(BigFloat, "", [(:quartic, 1.0), (:well, 1.0)], (1, 0.5), 1.0)
        errors = map((16, 32)) do m
            x = p.x0
            for _ in 1:m
                x = single_step(alg, p.net, x, 1 / m)[1]
            end
            relative(x, p.exact(1))
        end
        @test order - 0.3 < log2(errors[1] / errors[2]) < order + 0.7
    end

    # A predictor of k values and its corrector, from exact values on an irregular grid: local errors of order k + 1 and
    # k + 2. The Hessian is that of the third point back, so that neither the remainder nor its derivative vanish now.
    @testset "ExpAdams with $k values" for k in 2:MLPGF.ADAMS_MOST
        Q = BigFloat[3 -4; 4 3] / 5
        net = Rotated{BigFloat}([(:quartic, 1), (:well, 2)], Q)
        exact(t) = Q * [flow_of(:quartic, 1, 1, t), flow_of(:well, 2, 0.5, t)]
        function errors(h)
            problem = FlowProblem(net, 1)
            state = FlowState(problem, 1e-12, 1e-12)
            cache = MLPGF.make_state(ExpAdams(), BigFloat, problem.n)
            t = big(0.0)
            for m in 1:10
                copyto!(state.y, exact(t))
                MLPGF.value_and_gradient_at!(state.g, problem, state.y)
                state.h = h * (1 + (m + 2) % 3 / 4)           # h in the end
                cache.age = m in (1, 8) ? -1 : 1         # where the Hessian is taken
                cache.chosen = m == 10 ? k : 2
                @test MLPGF.step!(cache, problem, state)
                m == 10 && break
                MLPGF.accepted!(cache)
                fill!(cache.offset, 0)
                cache.move .= cache.eigen.vectors' * (exact(t + state.h) - exact(t))
                t += state.h
            end
            x = exact(t + state.h)
            return norm(state.ynew - x), norm(state.ynew + cache.trial - x), norm(state.err)
        end
        rates = log2.(errors(2.0^-12) ./ errors(2.0^-13))        # in powers of two, as times are Float64
        @test k + 0.9 < rates[1] < k + 1.1 && k + 0.9 < rates[3] < k + 1.1
        @test k + 1.9 < rates[2] < k + 2.1
    end

    # The formula of order k, started with exact values on an equidistant grid, over a fixed time.
    @testset "QNDF at order $k" for k in 1:5
        p = rotated(BigFloat, "", [(:quartic, 1.0), (:well, 1.0)], (1, 0.5), 1.0)
        function errors(m)
            h = 1 / m
            problem = FlowProblem(p.net, 1)
            state = FlowState(problem, 1e-13, 1e-13)
            state.exact = true
            cache = MLPGF.make_state(QNDF(linsolve=:cholesky), BigFloat, problem.n)
            past = [p.exact(-j * BigFloat(h)) for j in 0:k]
            for j in 0:k
                cache.D[j+1] .= sum((-1)^i * binomial(j, i) * past[i+1] for i in 0:j)
            end
            cache.order, cache.h, state.h = k, h, h
            copyto!(state.y, past[1])
            within = big"0"
            for step in 1:m
                # Newton's equation on its own: the limit for unstable directions would cut the steps of low order.
                MLPGF.value_and_gradient_at!(state.g, problem, state.y)
                copyto!(cache.D[1], state.y)
                cache.prediction .= sum(cache.D[1:k+1])
                α = (1 - BigFloat(MLPGF.QNDF_KAPPA[k])) * cache.gamma[k]
                cache.b .= cache.D[1] .+ sum((1 - cache.gamma[j] / α) * cache.D[j+1] for j in 1:k)
                @test MLPGF.step!(cache, problem, state, Float64(1 / α), 10.0, true)
                if step == m
                    c = zeros(BigFloat, 6 * problem.n)
                    MLPGF.interpolant!(c, 0, cache, problem, state)
                    c = reshape(c, problem.n, 6)
                    for s in (0.3, 0.6, 0.9)
                        x = c * [BigFloat(s)^i for i in 0:5]
                        within = max(within, norm(x - p.exact((m - 1 + BigFloat(s)) * BigFloat(h))))
                    end
                    @test norm(c[:, 1] - state.y) < 1e-70 && norm(sum(c, dims=2) - state.ynew) < 1e-70
                end
                MLPGF.advance!(state)
                MLPGF.accepted!(cache)
            end
            return norm(state.y - p.exact(1)), within
        end
        rates = log2.(errors(32) ./ errors(64))
        @test k - 0.35 < rates[1] < k + 0.6
        @test k - 0.35 < rates[2] < k + 1.6
    end

    @testset "rescaled differences" begin
        # Of a polynomial of degree 3 on a grid of step 0.1, carried over to a step of 0.07.
        f(t) = 2 - t + 3t^2 - t^3
        differences(h) = [sum((-1)^i * binomial(j, i) * f(-i * h) for i in 0:j) for j in 0:3]
        cache = MLPGF.make_state(QNDF(), Float64, 1)
        cache.order = 3
        foreach(j -> cache.D[j][1] = differences(0.1)[j], 1:4)
        MLPGF.rescale!(cache, 0.7)
        @test [cache.D[j][1] for j in 1:4] ≈ differences(0.07) rtol = 1e-13
    end

    @testset "functions of the exponential" begin
        for z in BigFloat[-40, -3, -1.01, -0.99, -0.1, -1e-9, 0, 1e-5, 0.7, 1.3, 5, 20]
            series(k) = sum(z^j / prod(big(1):big(j + k)) for j in 0:150)
            for (k, φ) in enumerate(MLPGF.phi(Float64(z)))
                @test φ ≈ series(k) rtol = 2e-13
            end
        end
    end

    @testset "eigenvectors, $T" for T in (Float32, Float64, BigFloat)
        A = T[sin(i * j) + sin(j * i) for i in 1:7, j in 1:7]
        e = MLPGF.SymmetricEigen{T}(7)
        @test MLPGF.decompose!(e, A)
        @test norm(e.vectors * Diagonal(e.values) * e.vectors' - A) < 100 * eps(T)
        @test norm(e.vectors' * e.vectors - I) < 100 * eps(T)
        v = T.(1:7)
        @test MLPGF.rotate!(similar(v), 'T', e, v) ≈ e.vectors' * v
        @test MLPGF.rotate!(similar(v), 'N', e, v) ≈ e.vectors * v
    end

    @testset "eigenvectors in place, $T" for T in (Float32, Float64)
        waves = T[sin(i * j) for i in 1:40, j in 1:12]
        for A in (T[sin(i * j) + sin(j * i) for i in 1:7, j in 1:7], waves * waves', ones(T, 20, 20), zeros(T, 3, 3),
                  Matrix{T}(I, 30, 30), T[abs(i - j) == 1 ? 1e-30 : (i == j) * 10.0^(30 - i) for i in 1:60, j in 1:60],
                  zeros(T, 0, 0)), sparing in (false, true)
            d, V = MLPGF.eigenpairs!(copy(A); sparing=sparing)
            @test issorted(d) && norm(V' * V - I) < 100 * eps(T)
            @test norm(V * Diagonal(d) * V' - A) <= 100 * eps(T) * norm(A)
        end
        @test_throws ArgumentError MLPGF.eigenpairs!(T[1 0; 0 NaN])
    end

    # References: closed forms, else Rodas5P and Tsit5 at tight tolerance, which agree.
    @testset "$p" for p in test_problems()
        tight(alg) = flow(p.net, p.x0; alg=alg, abstol=1e-11, reltol=1e-11, maxT=p.T).x
        reference = p.exact === nothing ? tight(Rodas5P()) : p.exact(p.T)
        p.exact === nothing && @test relative(tight(Tsit5()), reference) < 1e-8
        for alg in (METHODS..., Auto())
            p.name == "stiff" && alg in EXPLICIT && continue        # millions of steps
            # 40 gradients' time an eigenproblem
            p.name == "601 parameters" && alg in (Exprb53s3(), ExpAdams()) && continue
            r = flow(p.net, p.x0; alg=alg, abstol=1e-6, reltol=1e-6, maxT=p.T, save_everystep=true)
            @test r.stopped_by == Stop.maxT && r.t === p.T
            @test relative(r.x, reference) < (alg isa TRBDF2 ? 3e-4 : alg isa QNDF ? 1e-4 : 5e-6)
            rise = diff(r.trajectory.loss)
            @test maximum(rise) <= 1e-5 * r.trajectory.loss[1]
            @test r.loss ≈ loss(p.net, r.x) rtol = 1e-12
            alg == Auto() && p.name == "stiff" && @test r.alg == "Tsit5+Rodas5P"
        end
    end

    # An error that falls with the tolerance as the order of the method's estimate says.
    @testset "tolerance, $alg" for alg in METHODS
        p = test_problems()[alg in EXPLICIT ? 1 : 4]
        T = p.T
        tolerances = exp10.(-4:-1:(alg isa TRBDF2 ? -7 : -9))
        errors = [relative(flow(p.net, p.x0; alg=alg, abstol=t, reltol=t, maxT=T).x, p.exact(T)) for t in tolerances]
        slope = log(errors[1] / errors[end]) / log(tolerances[1] / tolerances[end])
        @test slope > 0.6
        @test all(errors .< 400 .* tolerances .^ (alg isa TRBDF2 ? 2 / 3 : 1))
    end

    # Below the tolerance an escape direction must still grow at its rate.
    # What conjugate gradients do to it before it dominates costs a little of the rate.
    @testset "saddle, $alg" for alg in (METHODS..., Auto()), start in (1e-4, 1e-9)
        time = log(1 / start) + 0.5         # about half the way between saddle and minimum
        p = rotated(Float64, "", [(:well, 1.0), (:square, 0.3), (:square, 50.0)], (start, 1, 1), time)
        r = flow(p.net, p.x0; alg=alg, maxT=time)
        along(x) = dot(p.net.Q[:, 1], x)
        error = alg in STIFF[[3, 5]] ? 1e-2 : alg in STIFF[[2, 4]] ? 2e-3 : 2e-4
        @test along(r.x) ≈ along(p.exact(time)) rtol = error
        @test r.iterations < (alg isa TRBDF2 ? 5000 : 700)
        # A saddle of a quadratic, left for good.
        q = rotated(Float64, "", [(:square, -1.0), (:square, 3.0)], (start, 1), time)
        r = flow(q.net, q.x0; alg=alg, maxT=time)
        error = alg in STIFF[[3, 5]] ? 0.05 : alg in (STIFF[[2, 4]]..., RK4()) ? 2e-3 : 1e-4
        @test dot(q.net.Q[:, 1], r.x) ≈ start * exp(time) rtol = error
    end

    @testset "long clock, $alg" for alg in STIFF
        q = rotated(Float64, "", [(:square, 1.0), (:square, 50.0), (:square, 1e3)], (1, 1, 1), 1.0)
        r = flow(q.net, q.x0; alg=alg, maxT=1e300, min_gnorm=-1)
        # By products alone round-off may end the flow before, when nothing is left of the gradient.
        @test r.stopped_by == Stop.maxT || alg in STIFF[[3, 5]] && r.gnorm < 1e-100
        @test r.iterations < 3000
        @test norm(r.x) < 1e-10
        r = flow(q.net, q.x0; alg=alg)
        @test r.stopped_by in (Stop.roundoff, Stop.min_gnorm) && norm(r.x) < 1e-12
        # Among the smallest numbers every step is round-off.
        r = flow(q.net, [0, 0, 1e-323]; alg=alg, maxiterations=1000)
        @test r.stopped_by in (Stop.roundoff, Stop.min_gnorm)
    end

    @testset "tauinv, $alg" for alg in (RK4(), STIFF[2:end]...)
        p = test_problems()[1]
        τ = [1.0, 0.0, 3.0, 0.5, 2.0]
        reference = flow(p.net, p.x0; alg=Rodas5P(), tauinv=τ, maxT=1.0, abstol=1e-12, reltol=1e-12).x
        r = flow(p.net, p.x0; alg=alg, tauinv=τ, maxT=1.0, abstol=1e-7, reltol=1e-7, dense=true)
        @test relative(r.x, reference) < 3e-5 && r.x[2] === p.x0[2]
        @test r.sol(1.0) ≈ r.x rtol = 1e-12
    end

    @testset "dense output, $alg" for alg in (METHODS..., Auto())
        p = test_problems()[3]
        r = flow(p.net, p.x0; alg=alg, maxT=p.T, dense=true)
        bound = alg isa TRBDF2 ? 3e-3 : alg isa QNDF ? 1e-3 : 3e-5
        @test all(norm(r.sol(t) - p.exact(t)) < bound for t in range(0, p.T, length=301))
        c = r.sol.coefficients
        @test all(norm(sum(c[:, :, k], dims=2) - c[:, 1, k+1]) < 1e-12 for k in 1:r.iterations-1)
        @test r.sol(p.T) ≈ r.x rtol = 1e-13
    end

    @testset "number types, $alg" for alg in METHODS
        p = test_problems(Float32)[1]
        r = flow(p.net, p.x0; alg=alg, maxT=p.T, abstol=1e-5, reltol=1e-5)
        @test r.x isa Vector{Float32} && relative(r.x, p.exact(p.T)) < 5e-3
        one = Rotated{Float64}([(:quartic, 1.0)], ones(1, 1))
        @test flow(one, [1.0]; alg=alg, maxT=10, abstol=1e-8, reltol=1e-8).x[1] ≈ 1 / sqrt(21) rtol = 1e-5
    end

    @testset "no allocation, $alg, $T" for alg in METHODS, T in (Float64, Float32)
        p = test_problems(T)[4]
        run(m) = flow(p.net, p.x0; alg=alg, maxiterations=m, dt=1e-4, n_samples_trajectory=2)
        run(3)
        few = @allocated run(3)
        @test @allocated(run(40)) == few
    end

    @testset "evaluations" begin
        p = test_problems()[5]
        # Points that are kept are evaluated where their loss and gradient were a model's.
        runs = Dict(alg => flow(p.net, p.x0; alg=alg, maxT=p.T, n_samples_trajectory=2) for alg in (RK4(), STIFF...))
        r = runs[RK4()]
        @test r.nfev == 6 * (r.iterations + r.rejected) + 2 && r.nhev == 0
        r = runs[Exprb53s3()]
        @test r.nfev <= 3 * (r.iterations + r.rejected) + 2 && r.nhev == r.iterations
        r = runs[ExpAdams()]
        @test r.nfev <= r.iterations + r.rejected + 3 && r.nhev <= 1 + r.iterations / 8 + r.rejected / 2
        # Few Hessians and about two gradients a step are the point of the method.
        r = runs[QNDF(linsolve=:cholesky)]
        @test r.nhev < r.iterations / 8 && r.nfev < 2.2 * r.iterations
        r = runs[QNDF(linsolve=:krylov)]
        @test r.nhev == 0 && 0 < r.nhvp < 4 * r.iterations
    end

    @testset "memory" begin
        # 10 000 parameters: a Hessian alone would take 800 MB.
        N = 20
        p = student(Float64, "large", [(2500, softplus)], [(4, softplus)], 2, N)
        @test length(p.x0) == 10_001
        for alg in (QNDF(), TRBDF2(), Auto())
            run() = flow(p.net, p.x0; alg=alg, maxT=0.02, n_samples_trajectory=2)
            run()
            bytes = @allocated r = run()
            @test r.stopped_by == Stop.maxT
            @test bytes < 40 * 8 * 10_001
        end
    end

    @testset "choice of the stiff method" begin
        choice = MLPGF.stiff_method
        @test choice(33, 66) == choice(201, 402) == choice(33, 544, true) == Rodas5P()
        @test choice(33, 67) == choice(33, 10_000) == choice(401, 1000) == ExpAdams()
        @test choice(33, 545, true) == Exprb53s3()
        @test choice(601, 100) == choice(10_000, 10^6) == QNDF(linsolve=:krylov)
        p = student(Float64, "", [(8, softplus)], [(4, softplus)], 2, 2000)
        r = flow(p.net, p.x0; maxT=30, dense=true)
        @test r.alg == "ExpAdams" && r.iterations < 100
        @test r.sol(30.0) ≈ r.x rtol = 1e-12
        # Towards a minimum at infinity: ExpAdams alone takes a million steps to t = 1e12.
        X = normal(1, 2, 100)
        Y = cos.(2 .* X[1:1, :]) .* X[2:2, :]
        channel = Net(layers=((4, tanh, true), (1, identity, true)), input=X, target=Y)
        r = flow(channel, random_params(0, channel); maxT=1e14, maxiterations=30_000, dense=true)
        @test r.t == 1e14 && r.alg == "ExpAdams+Rodas5P"
        @test r.sol(r.t) ≈ r.x rtol = 1e-12
        @test MLPGF.creeping_method(17, 100) == Rodas5P() && MLPGF.creeping_method(33, 10_000) == Exprb53s3()
    end

    @testset "linsolve" begin
        @test_throws ArgumentError QNDF(linsolve=:lu)
        @test_throws ArgumentError TRBDF2(linsolve=:dense)
    end

    @testset "events, $alg" for alg in (METHODS..., Auto())
        p = test_problems()[1]
        options = (alg=alg, maxT=p.T, abstol=1e-8, reltol=1e-8)
        begin
            # Along the slowest direction u = exp(-t/2).
            u(x) = dot(p.net.Q[:, 1], x)
            for event in ((t, x) -> u(x) - 0.5, (t, x) -> u(x) < 0.5, (t, x) -> 0.5 - u(x))
                r = flow(p.net, p.x0; options..., event=event, dense=true, save_everystep=true)
                @test r.stopped_by == Stop.event
                @test r.t ≈ 2 * log(2) atol = (alg isa TRBDF2 ? 1e-4 : 1e-5)
                @test u(r.x) ≈ 0.5 atol = 1e-9
                @test r.loss ≈ loss(p.net, r.x) rtol = 1e-13
                @test r.trajectory.t[end] == r.t == r.sol.t[end] && r.trajectory.x[:, end] == r.x
                @test r.sol(r.t) ≈ r.x rtol = 1e-12
                @test r.sol(r.t - 1e-3) ≈ p.exact(r.t - 1e-3) rtol = 1e-4
            end
            r = flow(p.net, p.x0; options..., event=(t, x, loss, gnorm) -> loss < 0.5)
            @test r.stopped_by == Stop.event && isapprox(r.loss, 0.5; rtol=1e-9)
            r = flow(p.net, p.x0; options..., event=(t, x, loss, gnorm) -> gnorm - 0.2)
            @test r.stopped_by == Stop.event && isapprox(r.gnorm, 0.2; rtol=1e-9)
        end
    end

    @testset "events at the ends" begin
        p = test_problems()[1]
        @test flow(p.net, p.x0; maxT=1, event=(t, x) -> true).t == 0
        @test flow(p.net, p.x0; maxT=1, event=(t, x) -> false).stopped_by == Stop.maxT
        @test flow(p.net, p.x0; maxT=1, event=(t, x) -> 1.0).stopped_by == Stop.maxT
        @test_throws ArgumentError flow(p.net, p.x0; maxT=1, event=x -> true)
        @test_throws ArgumentError flow(p.net, p.x0; maxT=1, event=(t, x) -> "now")
        r = flow(p.net, p.x0; maxT=1, tauinv=[0.0, 1, 1, 1, 1], event=(t, x) -> t - 0.25)
        @test r.t ≈ 0.25 rtol = 1e-12
        @test r.x[1] === p.x0[1]
    end

    @testset "observables" begin
        p = test_problems()[5]
        other = test_problems()[8]
        r = flow(p.net, p.x0; maxT=2, n_samples_trajectory=10, observables=["norm" => norm, :first => x -> x[1]])
        t = r.trajectory
        @test t.names == ["norm", "first"] && size(t.observables) == (2, length(t))
        @test t["norm"] == [norm(t.x[:, k]) for k in 1:length(t)] && t[:first] == t.x[1, :]
        @test_throws ArgumentError t["second"]
        @test_throws ArgumentError flow(p.net, p.x0; maxT=2, observables=["bad" => x -> "a"])
        @test size(flow(p.net, p.x0; maxT=1).trajectory.observables, 1) == 0
    end
end
