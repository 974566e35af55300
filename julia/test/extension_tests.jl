# The solvers of other packages, where they are installed: on Julia 1.9 and newer.
using LinearAlgebra, MLPGF, Test
import MLPGF: Stop

Base.include(@__MODULE__, joinpath(@__DIR__, "problems.jl"))

installed(name) = VERSION >= v"1.9" && Base.identify_package(name) !== nothing
package(name) = Base.require(Base.identify_package(name))
const ODE = ["OrdinaryDiffEqTsit5", "OrdinaryDiffEqRosenbrock", "OrdinaryDiffEqSDIRK", "OrdinaryDiffEqBDF"]
const HAVE_ODE, HAVE_SUNDIALS, HAVE_OPTIM, HAVE_NLOPT, HAVE_FORWARDDIFF =
    all(installed, ODE), installed("Sundials"), installed("Optim"), installed("NLopt"), installed("ForwardDiff")
const HAVE_COMMONSOLVE, HAVE_OPTIMIZATION, HAVE_RECIPES =
    installed("CommonSolve"), HAVE_OPTIM && installed("OptimizationOptimJL"), installed("RecipesBase")
const PACKAGES = Dict{String,Module}(name => package(name) for name in
    [HAVE_ODE ? ["SciMLBase"; ODE] : String[]; HAVE_SUNDIALS ? ["Sundials"] : String[];
     HAVE_OPTIM ? ["Optim"] : String[]; HAVE_NLOPT ? ["NLopt"] : String[];
     HAVE_FORWARDDIFF ? ["ForwardDiff"] : String[];
     HAVE_COMMONSOLVE ? ["CommonSolve"] : String[]; HAVE_OPTIMIZATION ? ["OptimizationOptimJL"] : String[];
     HAVE_RECIPES ? ["RecipesBase"] : String[]])
pick(name, method) = getfield(PACKAGES[name], method)

const PROBLEMS = test_problems()
problem(name) = PROBLEMS[findfirst(p -> p.name == name, PROBLEMS)]
largest(v) = maximum(abs, v)

"A net that counts what it is asked for."
mutable struct Counted <: MLPGF.AbstractNet{Float64}
    net::Net{Float64}
    gradients::Int
    hessians::Int
    products::Int
end
Counted(net) = Counted(net, 0, 0, 0)
MLPGF.n_params(c::Counted) = n_params(c.net)
MLPGF.loss(c::Counted, x) = loss(c.net, x)
MLPGF.value_and_gradient!(g::Vector, c::Counted, x) = (c.gradients += 1; value_and_gradient!(g, c.net, x))
MLPGF.hessian!(H::Matrix, c::Counted, x) = (c.hessians += 1; hessian!(H, c.net, x))
MLPGF.hvp!(y::Vector, c::Counted, x, v) = (c.products += 1; hvp!(y, c.net, x, v))

@testset "names" begin
    @test MLPGF.provided("KenCarp58", MLPGF.FLOW_PROVIDERS).package == "OrdinaryDiffEqSDIRK"
    @test MLPGF.provided("sciml.Rodas5P", MLPGF.FLOW_PROVIDERS).method == "Rodas5P"
    @test MLPGF.provided("optim.Newton", MLPGF.FLOW_PROVIDERS) === nothing
    @test MLPGF.named_method(MLPGF.FLOW_METHODS, "alg", "Rodas5P") isa Rodas5P       # ours, where there are two
    @test_throws ArgumentError MLPGF.named_method(MLPGF.FLOW_METHODS, "alg", "Rodas55")
    net = problem("quadratic").net
    @test_throws ArgumentError flow(net, zeros(5); alg="KenCarp58")
    @test_throws ArgumentError minimize(net, zeros(5); optim_solver=3)
    HAVE_ODE || @test_throws ArgumentError MLPGF.named_method(MLPGF.FLOW_METHODS, "alg", "sciml.Rodas5P")
end

if HAVE_ODE
    # (package, name, what tolerances of 1e-8 give on smooth problems, relative to the parameters)
    methods = [("OrdinaryDiffEqTsit5", :Tsit5, 1e-6), ("OrdinaryDiffEqRosenbrock", :Rodas5P, 1e-6),
               ("OrdinaryDiffEqSDIRK", :KenCarp58, 1e-6), ("OrdinaryDiffEqSDIRK", :TRBDF2, 1e-4),
               ("OrdinaryDiffEqBDF", :QNDF, 1e-4), ("OrdinaryDiffEqBDF", :FBDF, 1e-4)]
    algorithms = Any[(String(m), pick(p, m)(), bound) for (p, m, bound) in methods]
    if HAVE_SUNDIALS
        push!(algorithms, ("CVODE_BDF", pick("Sundials", :CVODE_BDF)(linear_solver=:GMRES), 1e-4))
        push!(algorithms, ("CVODE_BDF", pick("Sundials", :CVODE_BDF)(), 1e-4))
    end
    @testset "flow by $name" for (name, alg, bound) in algorithms
        for p in PROBLEMS[[1, 3, 4]]
            res = flow(p.net, p.x0; alg=alg, maxT=p.T, abstol=1e-8, reltol=1e-8)
            @test res.stopped_by == Stop.maxT && res.t == p.T && res.alg == name
            # the saddle's escape multiplies an early error by a million
            @test largest(res.x - p.exact(p.T)) <= bound * (p.name == "saddle" ? 1e3 : 1)
        end
        p = problem("33 parameters")
        reference = flow(p.net, p.x0; alg=Rodas5P(), maxT=10, abstol=1e-12, reltol=1e-12)
        res = flow(p.net, p.x0; alg=alg, maxT=10, abstol=1e-8, reltol=1e-8, dense=true, save_everystep=true,
                   tauinv=1, observables=["first" => first])
        @test largest(res.x - reference.x) <= bound * largest(reference.x)
        @test res.loss == loss(p.net, res.x) && issorted(-res.trajectory.loss) &&
            length(res.trajectory) == res.iterations + 1
        @test res.trajectory["first"] == res.trajectory.x[1, :]
        middle = flow(p.net, p.x0; alg=Rodas5P(), maxT=3.3, abstol=1e-12, reltol=1e-12)
        @test largest(res.sol(3.3) - middle.x) <= 100 * bound * largest(middle.x)
        # time constants, one parameter frozen
        tauinv = [i == 3 ? 0.0 : 0.5 + i / 33 for i in 1:33]
        exact = flow(p.net, p.x0; alg=Rodas5P(), maxT=3, abstol=1e-12, reltol=1e-12, tauinv=tauinv)
        slow = flow(p.net, p.x0; alg=alg, maxT=3, abstol=1e-8, reltol=1e-8, tauinv=tauinv)
        @test slow.x[3] === p.x0[3] && largest(slow.x - exact.x) <= bound * largest(exact.x)
        # the stops
        @test flow(p.net, p.x0; alg=alg, maxiterations=7).iterations == 7
        @test flow(p.net, p.x0; alg=alg, min_gnorm=1e-2).stopped_by == Stop.min_gnorm
        @test flow(p.net, p.x0; alg=alg, minloss=1e-2).stopped_by == Stop.minloss
        @test flow(p.net, p.x0; alg=alg, maxtime=0.05, reltol=1e-10, abstol=1e-10).stopped_by == Stop.maxtime
        event = flow(p.net, p.x0; alg=alg, event=(t, x, loss, gnorm) -> loss - 0.1, abstol=1e-8, reltol=1e-8)
        @test event.stopped_by == Stop.event && abs(event.loss - 0.1) < 1e-4
        asked = flow(p.net, p.x0; alg=alg, monitor=MLPGF.Monitor((a...) -> Stop.callback; interval=0.0))
        @test asked.stopped_by == Stop.callback && asked.x == p.x0
    end
    @testset "float32, divergence and the finish line" begin
        p = test_problems(Float32)[1]
        res = flow(p.net, p.x0; alg=pick("OrdinaryDiffEqRosenbrock", :Rodas5P)(), maxT=p.T)
        @test res.x isa Vector{Float32} && largest(res.x - p.exact(p.T)) < 1e-4
        q = problem("quadratic")
        @test flow(q.net, q.x0; alg=pick("OrdinaryDiffEqRosenbrock", :Rodas5P)(), maxtime=20).stopped_by in
              (Stop.roundoff, Stop.min_gnorm)          # a gradient that is zero to the last bit
        # targets that no float can fit: the loss is not finite from the start
        wall = Net(layers=((2, MLPGF.activation("exp"), true), (1, MLPGF.activation("identity"), true)),
                   input=[800.0 -800.0], target=[1.0, 2.0])
        res = flow(wall, [1.0, 1, 0, 0, 1, 1, 0]; alg=pick("OrdinaryDiffEqTsit5", :Tsit5)(), maxtime=5)
        @test res.stopped_by == Stop.diverged && all(isfinite, res.x)
    end
    @testset "nets as problems of SciML" begin
        solve, ODEProblem = pick("SciMLBase", :solve), pick("SciMLBase", :ODEProblem)
        p = problem("33 parameters")
        tauinv = [i == 3 ? 0.0 : 0.5 + i / 33 for i in 1:33]
        exact = flow(p.net, p.x0; alg=Rodas5P(), maxT=3, abstol=1e-12, reltol=1e-12)
        slow = flow(p.net, p.x0; alg=Rodas5P(), maxT=3, abstol=1e-12, reltol=1e-12, tauinv=tauinv)
        for (package, method) in (("OrdinaryDiffEqRosenbrock", :Rodas5P), ("OrdinaryDiffEqSDIRK", :KenCarp58))
            net = Counted(p.net)
            solution = solve(ODEProblem(net, p.x0, (0.0, 3.0)), pick(package, method)(); abstol=1e-9, reltol=1e-9)
            @test largest(solution.u[end] - exact.x) <= 1e-6 * largest(exact.x)
            # the Hessian is the Jacobian, and nothing is differenced: a gradient for each evaluation of theirs
            @test 0 < net.hessians <= solution.stats.naccept + solution.stats.nreject + 2
            @test net.gradients == solution.stats.nf && net.products == 0
            @test largest(solution(1.1) - flow(p.net, p.x0; alg=Rodas5P(), maxT=1.1, abstol=1e-12,
                                               reltol=1e-12).x) < 1e-5
            other = solve(ODEProblem(p.net, p.x0, (0.0, 3.0); tauinv=tauinv), pick(package, method)(); abstol=1e-9,
                          reltol=1e-9)
            @test largest(other.u[end] - slow.x) <= 1e-6 * largest(slow.x) && other.u[end][3] === p.x0[3]
        end
        f = ODEProblem(p.net, p.x0, (0.0, 3.0); tauinv=tauinv).f
        J, v, y = zeros(33, 33), collect(1.0:33), zeros(33)
        f.jac(J, p.x0, nothing, 0.0)
        @test J == -tauinv .* hessian(p.net, p.x0) && size(f.jac_prototype) == (33, 33)
        f.jvp(y, v, p.x0, nothing, 0.0)
        @test y ≈ J * v
        f.vjp(view(y, 33:-1:1), v, view(p.x0, 1:33), nothing, 0.0)
        @test reverse(y) ≈ J' * v
        @test_throws DimensionMismatch ODEProblem(p.net, [1.0], (0.0, 1.0))
        @test_throws DimensionMismatch ODEProblem(p.net, p.x0, (0.0, 1.0); tauinv=[1.0])
        @test_throws ArgumentError ODEProblem(p.net, p.x0, (0.0, 1.0); tauinv=-1)
        single = test_problems(Float32)[1]
        solution = solve(ODEProblem(single.net, single.x0, (0.0f0, Float32(single.T))),
                         pick("OrdinaryDiffEqTsit5", :Tsit5)())
        @test solution.u[end] isa Vector{Float32} && largest(solution.u[end] - single.exact(single.T)) < 1e-2
    end
    @testset "calls by text" begin
        p = problem("33 parameters")
        for text in ("KenCarp58(linsolve = LinearSolve.KrylovJL_GMRES())",
                     "sciml.KenCarp58(linsolve=LinearSolve.KrylovJL_GMRES())")
            MLPGF.load_provider(MLPGF.FLOW_METHODS, text, MLPGF.FLOW_PROVIDERS)
            alg = MLPGF.named_method(MLPGF.FLOW_METHODS, "alg", text)
            res = flow(p.net, p.x0; alg=alg, maxT=1.0)
            @test res.alg == "KenCarp58" && res.nhvp > 0 && res.nhev == 0       # products in place of the matrix
            @test flow(p.net, p.x0; alg=MLPGF.named_method(MLPGF.FLOW_METHODS, "alg", "KenCarp58"), maxT=1.0).nhvp == 0
        end
        for text in ("KenCarp58(linsolve = nowhere)", "KenCarp58(", "KenCarp58() + 1", "KenCarp58(wrong_option = 1)")
            @test_throws ArgumentError MLPGF.named_method(MLPGF.FLOW_METHODS, "alg", text)
        end
    end
    @testset "by name" begin
        named = MLPGF.named_method(MLPGF.FLOW_METHODS, "alg", "KenCarp58")
        @test MLPGF.provider(named) == "sciml"
        p = problem("quadratic")
        @test flow(p.net, p.x0; alg=named, maxT=1).alg == "KenCarp58"
    end
else
    @info "the extension for OrdinaryDiffEq is not tested: its packages are not in this environment"
end

if HAVE_COMMONSOLVE
    @testset "a flow step by step" begin
        solve, init, step!, solve! = (pick("CommonSolve", name) for name in (:solve, :init, :step!, :solve!))
        p = problem("33 parameters")
        problems = GradientFlowProblem(p.net, p.x0; maxT=10.0, save_everystep=true)
        whole = flow(p.net, p.x0; alg=Rodas5P(), maxT=10.0, save_everystep=true)
        same(a, b) = a.x == b.x && a.t == b.t && a.loss == b.loss && a.iterations == b.iterations
        @test same(solve(problems, Rodas5P()), whole) && same(flow(problems; alg=Rodas5P()), whole)
        @test solve(problems; maxT=1.0).t == 1.0 && solve(problems).alg == flow(p.net, p.x0; maxT=10.0).alg
        steps = init(problems, Rodas5P())
        @test steps.t == 0 && steps.x == p.x0 && steps.loss == loss(p.net, p.x0) && steps.iterations == 0
        for m in 1:whole.iterations
            @test steps.result === nothing
            gradient(p.net, zero(p.x0))           # the net is free between the steps
            @test step!(steps) === steps
            @test steps.x == whole.trajectory.x[:, m+1] && steps.t == whole.trajectory.t[m+1] && steps.iterations == m
        end
        @test same(steps.result, whole) && solve!(steps) === steps.result && step!(steps) === steps
        steps = step!(init(problems, Rodas5P()), 2.0)
        @test steps.t >= 2 > whole.trajectory.t[steps.iterations] && same(solve!(steps), whole)
        @test p.net.monitor === nothing
        # an end at the start, an end by the monitor, a failure
        @test init(GradientFlowProblem(p.net, p.x0; maxT=0.0)).result.stopped_by == Stop.maxT
        asked = init(problems; monitor=MLPGF.Monitor((phase, i,
                                                      rest...) -> i < 3 ? Stop.running : Stop.callback; interval=0.0))
        @test solve!(asked).stopped_by == Stop.callback && asked.iterations == 3
        failing = init(GradientFlowProblem(p.net, p.x0; event=(t, x) -> t > 0.1 ? error("no") : false))
        @test_throws ErrorException solve!(failing)
        @test_throws ArgumentError init(problems, 3)
        @test_throws ArgumentError step!(init(problems), -1.0)
        @test_throws DimensionMismatch GradientFlowProblem(p.net, [1.0])
        @test_throws MethodError GradientFlowProblem(p.net, p.x0; maxt=1)
        adam = init(GradientFlowProblem(p.net, p.x0; alg=nothing), Adam(learning_rate=0.1))
        @test step!(step!(adam)).iterations == 2
    end
else
    @info "steps by CommonSolve are not tested: it is not in this environment"
end

if HAVE_RECIPES
    @testset "recipes" begin
        recipe(result) = only(pick("RecipesBase", :apply_recipe)(Dict{Symbol,Any}(), result))
        p = problem("33 parameters")
        res = flow(p.net, p.x0; maxT=1.0)
        drawn = recipe(res)
        t, y = drawn.args
        @test isnan(t[1]) && t[2:end] == res.trajectory.t[2:end] && y == [res.trajectory.loss res.trajectory.gnorm]
        @test drawn.plotattributes[:xscale] == drawn.plotattributes[:yscale] == :log10
        found = minimize(p.net, p.x0; maxiterations=5)
        @test recipe(found).args == (found.trace.iteration, [found.trace.loss found.trace.gnorm])
    end
else
    @info "recipes are not tested: RecipesBase is not in this environment"
end

const WELL_POSED = let X = inputs(Float64, 2, 60)
    layers = ((3, tanh, true), (1, MLPGF.activation("identity"), true))
    Net(layers=layers, input=X, target=sin.(X[1, :]) .+ 0.3 .* X[2, :] .^ 2, l2=1e-3)
end

function check_minimizer(name, solver, bound)
    x0 = random_params(1, WELL_POSED)
    res = minimize(WELL_POSED, x0; optim_solver=solver, maxtime=100)
    @test res.optim_solver == name && res.gnorm <= bound && res.loss == loss(WELL_POSED, res.x)
    @test res.stopped_by in (Stop.roundoff, Stop.patience)
    @test minimize(WELL_POSED, x0; optim_solver=solver, maxiterations=3).iterations == 3
    @test minimize(WELL_POSED, x0; optim_solver=solver, min_gnorm=1e-3).stopped_by == Stop.min_gnorm
    @test minimize(WELL_POSED, x0; optim_solver=solver, minloss=0.2).stopped_by == Stop.minloss
    asked = minimize(WELL_POSED, x0; optim_solver=solver,
                     monitor=MLPGF.Monitor((a...) -> Stop.interrupted; interval=0.0))
    @test asked.stopped_by == Stop.interrupted && asked.x == x0
end

if HAVE_OPTIM
    @testset "minimize by Optim's $method" for method in (:Newton, :NewtonTrustRegion, :BFGS, :LBFGS)
        check_minimizer(String(method), pick("Optim", method)(), 1e-9)
    end
    @test MLPGF.provider(MLPGF.named_method(MLPGF.MINIMIZE_METHODS, "optim_solver", "optim.Newton")) == "optim"
    @testset "options of Optim's own" begin
        method = MLPGF.named_method(MLPGF.MINIMIZE_METHODS, "optim_solver", "optim.LBFGS(m = 3)")
        @test method.method.m == 3
        x0 = random_params(1, WELL_POSED)
        early = minimize(WELL_POSED, x0; optim_solver=method, optim_options=(f_calls_limit=7,))
        @test early.nfev <= 10 && early.stopped_by == Stop.patience
        @test minimize(WELL_POSED, x0; optim_solver=method, optim_options=Dict("g_abstol" => 1e-3)).gnorm <= 1e-3
        for options in ((nonsense=1,), (iterations=3,), (callback=x -> true,))
            @test_throws ArgumentError minimize(WELL_POSED, x0; optim_solver=method, optim_options=options)
        end
        @test_throws ArgumentError minimize(WELL_POSED, x0; optim_options=(g_abstol=1e-3,))
    end
else
    @info "the extension for Optim is not tested: it is not in this environment"
end

if HAVE_OPTIMIZATION
    @testset "nets as problems of Optimization" begin
        solve, OptimizationProblem = pick("SciMLBase", :solve), pick("SciMLBase", :OptimizationProblem)
        x0 = random_params(1, WELL_POSED)
        # the last stops at a gradient norm of 3e-8, where steps are short
        for (method, hessians, products, bound) in ((:BFGS, false, false, 1e-6),
                                                    (:NewtonTrustRegion, true, false, 1e-6),
                                                    (:Newton, true, false, 1e-6), (:KrylovTrustRegion, false, true,
                                                                                   1e-3))
            net = Counted(WELL_POSED)
            solution = solve(OptimizationProblem(net, x0), pick("Optim", method)(); g_abstol=1e-10)
            ours = minimize(WELL_POSED, solution.u)              # the minimum next to theirs
            @test largest(solution.u - ours.x) < bound && abs(solution.objective - ours.loss) <= bound^2 * ours.loss
            @test (net.hessians > 0, net.products > 0) == (hessians, products)
            hessians && @test net.hessians == solution.stats.hevals
        end
        bounded = solve(OptimizationProblem(WELL_POSED, zero(x0); lb=fill(-0.1, length(x0)), ub=fill(0.1, length(x0))),
                        pick("Optim", :LBFGS)())
        @test largest(bounded.u) <= 0.1 && bounded.objective < loss(WELL_POSED, zero(x0))
        f = OptimizationProblem(WELL_POSED, x0).f
        P = length(x0)
        G, H, y = zeros(P), zeros(P, P), zeros(P)
        @test f.fgh(G, H, x0, nothing) == loss(WELL_POSED, x0) && G == gradient(WELL_POSED, x0) &&
            H == hessian(WELL_POSED, x0)
        f.hv(y, x0, collect(1.0:P), nothing)
        @test y == hvp(WELL_POSED, x0, collect(1.0:P))
        @test_throws DimensionMismatch OptimizationProblem(WELL_POSED, [1.0])
    end
else
    @info "problems of Optimization are not tested: OptimizationOptimJL is not in this environment"
end

if HAVE_NLOPT
    @testset "minimize by NLopt" begin
        check_minimizer("SLSQP", pick("NLopt", :LD_SLSQP), 1e-6)
        @test MLPGF.provider(MLPGF.named_method(MLPGF.MINIMIZE_METHODS, "optim_solver", "SLSQP")) == "nlopt"
        x0 = random_params(1, WELL_POSED)
        @test_throws ArgumentError minimize(WELL_POSED, x0; optim_solver=pick("NLopt", :GN_DIRECT))
        early = minimize(WELL_POSED, x0; optim_solver=pick("NLopt", :LD_SLSQP), optim_options=(ftol_rel=1e-2,))
        full = minimize(WELL_POSED, x0; optim_solver=pick("NLopt", :LD_SLSQP))
        @test early.nfev < full.nfev && early.stopped_by == Stop.patience
        @test_throws ArgumentError minimize(WELL_POSED, x0; optim_solver=pick("NLopt", :LD_SLSQP),
                                            optim_options=(nonsense=1,))
    end
else
    @info "the extension for NLopt is not tested: it is not in this environment"
end

if HAVE_FORWARDDIFF
    @testset "derivatives of users' activations by ForwardDiff" begin
        f = MLPGF.activation(x -> x * exp(-x^2))
        @test !(f.differentiation isa MLPGF.Jets)
        for x in (-1.3, 0.0, 0.7), T in (Float64, Float32, BigFloat)
            value, first, second = MLPGF.derivatives(f, T(x))
            @test value isa T && first isa T && second isa T
            e = exp(-T(x)^2)
            exact = (T(x) * e, (1 - 2T(x)^2) * e, (4T(x)^3 - 6T(x)) * e)
            @test all(abs.((value, first, second) .- exact) .<= 8eps(T))
        end
        @test MLPGF.derivatives(MLPGF.activation(x -> 2.0), 1.0) === (2.0, 0.0, 0.0)
    end
else
    @info "the extension for ForwardDiff is not tested: it is not in this environment"
end

if installed("Aqua")
    @testset "Aqua" begin
        aqua = package("Aqua")
        for check in (:ambiguities, :undefined_exports, :unbound_args, :stale_deps, :deps_compat, :piracies,
                      :project_extras)
            getfield(aqua, Symbol(:test_, check))(MLPGF)
        end
    end
else
    @info "Aqua's checks are not made: it is not in this environment"
end

if installed("JET")
    @testset "JET" begin
        jet = package("JET")
        reports = jet.get_reports(jet.report_package(MLPGF; target_modules=(MLPGF,), mode=:typo))
        # Keyword constructors without a type parameter, which @kwdef makes too, do not know T; nobody calls them.
        @test filter(r -> !occursin(r"`MLPGF\.T` is not defined", sprint(show, r)), reports) == []
    end
else
    @info "JET does not look for names that do not exist: it is not in this environment"
end
